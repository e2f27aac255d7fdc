"""cluster/: the Slurm script on a real Slurm with two nodes, and the Kubernetes job.

The Slurm runs on this machine alone: `slurmctld`, and `slurmd` once for each node. It needs root and Debian's packages
slurm-wlm and munge.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from commands import LIMIT, ROOT, SMALL, run

import checkpoint

NODES = ("n1", "n2")
needs_slurm = pytest.mark.skipif(
    not all(map(shutil.which, ("slurmctld", "slurmd", "munged", "sbatch"))) or os.geteuid() != 0,
    reason="Slurm is not installed, or this is not root: apt install slurm-wlm munge",
)
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SchedulerParameters=requeue_delay=1
KillWait=60
MinJobAge=600
MpiDefault=none
{nodes}
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Slurm:
    """A Slurm of two nodes. Its commands find it by SLURM_CONF."""

    def __init__(self, folder):
        host = socket.gethostname()
        (folder / "state").mkdir()
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=1" for name in NODES
        )
        path = folder / "slurm.conf"
        path.write_text(CONFIGURATION.format(host=host, control=free_port(), folder=folder, nodes=nodes))
        self.environment = os.environ | {"SLURM_CONF": str(path)}
        self.started = []
        self._munge(folder)
        self._start("slurmctld", "-D")
        for name in NODES:
            self._start("slurmd", "-D", "-N", name)
        self.wait_for(lambda: self.run("sinfo", "--noheader", "--format", "%T %D") == "idle 2")

    def _munge(self, folder):
        if subprocess.run(["munge", "-n"], capture_output=True).returncode == 0:
            return  # it runs already
        for path in ("/run/munge", "/var/log/munge", "/var/lib/munge"):
            os.makedirs(path, exist_ok=True)
            shutil.chown(path, "munge", "munge")
        self._start("runuser", "-u", "munge", "--", "munged", "--force", "--foreground")
        self.wait_for(lambda: subprocess.run(["munge", "-n"], capture_output=True).returncode == 0)

    def _start(self, *command):
        log = subprocess.DEVNULL
        self.started.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log))

    def run(self, *command):
        result = subprocess.run(command, env=self.environment, text=True, capture_output=True, timeout=LIMIT)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def state(self, job):
        fields = self.run("scontrol", "show", "job", job, "--oneliner").split()
        return next(field.partition("=")[2] for field in fields if field.startswith("JobState="))

    @staticmethod
    def wait_for(condition):
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def stop(self):
        for process in reversed(self.started):
            process.terminate()
        for process in self.started:
            process.wait(LIMIT)


@pytest.fixture
def slurm(tmp_path_factory):
    slurm = Slurm(tmp_path_factory.mktemp("slurm"))
    yield slurm
    slurm.stop()


@needs_slurm
@pytest.mark.slow
def test_a_slurm_job_on_two_nodes_is_requeued_and_ends_as_an_uninterrupted_one(slurm, tmp_path):
    for entry in ROOT.iterdir():
        if entry.name not in ("sagan_models", "log"):
            (tmp_path / entry.name).symlink_to(entry)
    options = [*SMALL, "--total_step", "300", "--log_step", "1", "--model_save_step", "1000", "--batch_size", "8"]
    options += ["--threads", "1"]
    # The same training, never interrupted.
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "train.py", "--name", "whole", *options]
    code, _, err = run(tmp_path, *launch)
    assert code == 0, err
    # The job's Python is the one of these tests.
    slurm.environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PROCESSES": "1"}
    (tmp_path / ".venv").unlink(missing_ok=True)
    command = ["sbatch", "--parsable", "--nodes", "2", "--gpus-per-node", "0", "cluster/slurm.sh", "--name", "mine"]
    job = subprocess.run(
        [*command, *options], cwd=tmp_path, env=slurm.environment, text=True, capture_output=True, check=True,
    ).stdout.strip()  # fmt: skip
    log, mine = tmp_path / f"gan-{job}.log", tmp_path / "sagan_models" / "mine"
    slurm.wait_for(lambda: (mine / "log.txt").exists() and " step 3 " in (mine / "log.txt").read_text())
    slurm.run("scancel", "--batch", "--signal", "USR1", job)  # what Slurm sends before the time limit
    slurm.wait_for(lambda: slurm.state(job) in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"))
    text = log.read_text()
    assert slurm.state(job) == "COMPLETED", text
    assert f"job {job}, start 1, nodes n[1-2], meeting at" in text and f"job {job}, start 2" in text
    assert "goes back into the queue" in text
    assert (
        "resumed at step" in (mine / "log.txt").read_text()
        and "in each of 2 processes" in (mine / "log.txt").read_text()
    )
    ends = [
        checkpoint.load(folder / "weights" / "latest").parts for folder in (mine, tmp_path / "sagan_models" / "whole")
    ]
    for part, arrays in ends[0].items():
        for name, array in arrays.items():
            assert (array == ends[1][part][name]).all(), f"{part}/{name}"


SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do case $1 in --nodes|--ntasks|--nodelist) shift 2;; *) shift;; esac; done
exec "$@"
"""


@pytest.mark.parametrize(
    ("code", "starts", "end"),
    [
        (0, 1, ""),
        (1, 1, ""),
        (75, 1, "job 7 goes back into the queue (exit code 75)\nscontrol requeue 7\n"),
        (75, 21, "job 7 ends: a process has died or hung, and the job has started 21 times\n"),
    ],
)
def test_the_slurm_script_with_stand_ins_for_slurm_and_without_ip(tmp_path, code, starts, end):
    """A job whose processes die at each start ends some time. A node without `ip` names no interface for gloo."""
    programs = {
        "srun": SRUN,
        "hostname": "#!/bin/bash\necho 10.0.0.1 fe80::1\n",
        "scontrol": '#!/bin/bash\n[ "$1" = show ] && echo n1 || echo scontrol "$@"\n',
        "ip": "#!/bin/bash\nexit 127\n",
        "python": f'#!/bin/bash\necho "gloo: ${{GLOO_SOCKET_IFNAME-unset}}"\nexit {code}\n',
    }
    for name, content in programs.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "SLURM_NNODES": "1", "SLURM_NODEID": "0"}
    slurm |= {"SLURM_RESTART_COUNT": str(starts - 1), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", ROOT / "cluster" / "slurm.sh"], cwd=tmp_path, env=slurm, text=True, capture_output=True, timeout=LIMIT
    )
    began = f"job 7, start {starts}, nodes n1, meeting at 10.0.0.1:20007\n"
    assert (done.returncode, done.stdout, done.stderr) == (code, f"{began}gloo: unset\n{end}", "")


def test_the_kubernetes_job_fits_the_published_schema():
    (job,) = yaml.safe_load_all((ROOT / "cluster" / "paddlejob.yaml").read_text())
    schema = yaml.safe_load((ROOT / "tests" / "fixtures" / "paddlejob_schema.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PaddleJob")
    assert misfits(job, schema) == []
    ((name, worker),) = job["spec"]["paddleReplicaSpecs"].items()
    (container,) = worker["template"]["spec"]["containers"]
    assert (name, container["name"]) == ("Worker", "paddle")  # the operator looks for these names
    job["spec"]["elastic"], worker["replicas"] = {}, "2"
    del container["name"]
    assert sorted(problem.rpartition("/")[2] for problem in misfits(job, schema)) == [
        "elastic is unknown",
        "name is missing",
        "replicas is no integer",
    ]


def misfits(value, schema, path=""):
    """A text for each value in `value` that breaks an OpenAPI v3 `schema`, such as "/spec/elastic is unknown"."""
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    if schema.get("x-kubernetes-int-or-string"):
        return [] if isinstance(value, (int, str)) else [f"{path} is no integer or string"]
    if not isinstance(value, kinds[schema["type"]]):
        return [f"{path} is no {schema['type']}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{path} is none of {schema['enum']}"]
    if isinstance(value, list):
        return [text for item in value for text in misfits(item, schema["items"], path)]
    if not isinstance(value, dict):
        return []
    found = [f"{path}/{name} is missing" for name in schema.get("required", ()) if name not in value]
    known, any_name = schema.get("properties"), schema.get("additionalProperties")
    if known is None and any_name is None:  # such as metadata
        return found
    for name, item in value.items():
        rules = known.get(name) if known is not None else any_name
        found += misfits(item, rules, f"{path}/{name}") if rules else [f"{path}/{name} is unknown"]
    return found

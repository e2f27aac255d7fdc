"""Exchanges between real processes."""

import subprocess
import sys

from commands import LIMIT, ROOT


def test_two_processes_add_up_their_gradients(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import types, runtime\n"
        "from processes import collectives\n"
        "runtime.start(types.SimpleNamespace(device='cpu', threads=None))\n"
        "import paddle\n"
        "layer = paddle.nn.Linear(2, 3)\n"
        "(layer(paddle.full([1, 2], float(collectives.rank() + 1)))).sum().backward()\n"
        "collectives.add_up([layer.weight.grad, layer.bias.grad])\n"
        "print(collectives.world_size(), layer.weight.grad.numpy().tolist(), layer.bias.grad.numpy().tolist())\n"
        "print(collectives.agree('from ' + str(collectives.rank())))\n"
    )
    logs = tmp_path / "logs"
    command = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", logs, script, ROOT]
    result = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=LIMIT)
    assert result.returncode == 0, result.stdout + result.stderr
    for rank in (0, 1):
        text = (logs / f"workerlog.{rank}").read_text()
        assert "2 [[3.0, 3.0, 3.0], [3.0, 3.0, 3.0]] [2.0, 2.0, 2.0]" in text
        assert "from 0" in text

"""Runs commands on a Python that lacks what Windows lacks: `python without_posix.py '[["train.py", "--help"], …]'`.

Each command is a list: a file of the project, then its arguments. All run in this process, one after the other. After
each one a line tells its exit code.
"""

import builtins
import importlib
import io
import json
import os
import runpy
import shutil
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = ("fcntl", "grp", "pwd", "resource", "termios")
SIGNALS = ("SIGHUP", "SIGKILL", "SIGPIPE", "SIG_BLOCK", "SIG_UNBLOCK", "pthread_sigmask", "sigwait", "setitimer")
NEED_FUNCTIONS = ("asyncio", "numpy")  # on this system their imports use os.sysconf and os.uname
FUNCTIONS = (
    "fork", "getuid", "geteuid", "killpg", "posix_fadvise", "pread", "pwrite", "sched_getaffinity", "setsid", "statvfs",
    "sysconf", "uname",
)  # fmt: skip


def take_away():
    """Remove what Windows lacks. Files that are open or mapped can no longer be renamed, replaced or removed."""
    for name in NEED_FUNCTIONS:
        importlib.import_module(name)
    statvfs = os.statvfs  # shutil's disk_usage needs it, and exists on Windows too
    shutil.disk_usage = lambda path: shutil._ntuple_diskusage(*[statvfs(path).f_bavail * statvfs(path).f_frsize] * 3)
    for name in MODULES:
        sys.modules[name] = None
    for name in SIGNALS:
        delattr(signal, name)
    for name in FUNCTIONS:
        if hasattr(os, name):
            delattr(os, name)
    import multiprocessing.context as context

    context._default_context.get_all_start_methods = lambda: ["spawn"]
    import multiprocessing

    multiprocessing.get_all_start_methods = context._default_context.get_all_start_methods
    for module in (builtins, io):
        module.open = _without_proc(module.open)
    os.symlink = _without_links
    for name in ("rename", "replace", "remove", "unlink"):
        setattr(os, name, _of_closed_files(getattr(os, name)))


def _without_proc(function):
    def wrapped(path, *arguments, **how):
        if isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(2, os.strerror(2), path)
        return function(path, *arguments, **how)

    return wrapped


def _without_links(*_, **__):
    raise OSError(22, "A required privilege is not held by the client")


_listdir, _readlink, _stat, _open = os.listdir, os.readlink, os.stat, io.open


def _in_use():
    """(device, inode) of each file that this process has open or mapped."""
    descriptors = [f"/proc/self/fd/{number}" for number in _listdir("/proc/self/fd")]
    with _open("/proc/self/maps", errors="surrogateescape") as maps:
        mapped = {line.split(maxsplit=5)[5].strip() for line in maps if line.count("/")}
    for path in (*descriptors, *mapped):
        try:
            found = _stat(path)
        except OSError:
            continue
        yield found.st_dev, found.st_ino


def _of_closed_files(function):
    def wrapped(*paths, **how):
        in_use = set(_in_use())
        for path in paths:
            try:
                found = _stat(path)
            except OSError:
                continue
            if (found.st_dev, found.st_ino) in in_use:
                raise PermissionError(13, "The process cannot access the file because it is being used", str(path))
        return function(*paths, **how)

    return wrapped


def main(commands):
    take_away()
    sys.path.insert(0, str(ROOT))
    for command in commands:
        sys.argv = [str(ROOT / command[0]), *command[1:]]
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            print(f"{command[0]} ended with {end.code or 0}", flush=True)


main(json.loads(sys.argv[1]))

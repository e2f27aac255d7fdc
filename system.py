"""The differences between operating systems: signals, file locks, files that are in use, memory.

Linux and macOS have all functions that are used here. Windows lacks some of them. There, this module does the nearest
thing that Windows allows. No other module uses a function that Windows lacks (`tests/test_system.py`). Commands
import this module first, so it imports nothing slow.
"""

import contextlib
import ctypes
import errno
import os
import signal
import sys
import threading
import time

# A process gets SIGHUP when its terminal or SSH session ends. Windows has no such signal.
STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
LOCKED_BYTE = 1 << 30  # on Windows a locked byte cannot be read, so it lies behind the end of each file
RETRY_SECONDS = 10  # on Windows; see `replace`

_seeking = threading.Lock()


def hold_signals():
    """Block STOPPING until `release_signals`. For the imports of a command, which a signal would end with a traceback.

    Without `pthread_sigmask` Ctrl-C ends the process at once, without a traceback.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    else:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def release_signals():
    """End the effect of `hold_signals`. The caller has set its handlers before."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def try_lock(file):
    """Lock an open file until it is closed or this process ends. Raises BlockingIOError if another process has done so.

    Raises another OSError if the file system, or this system, has no locks.
    """
    try:
        import fcntl
    except ImportError:
        _try_lock_byte(file)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _try_lock_byte(file):
    try:
        import msvcrt
    except ImportError:
        raise OSError(errno.ENOLCK, "this system has no file locks") from None
    place = file.tell()
    file.seek(LOCKED_BYTE)
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError:  # Windows has one error for all reasons
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
    finally:
        file.seek(place)


def wait_for_lock(file):
    """Lock an open file as `try_lock` does, but wait while another process has locked it.

    Where there are no locks, go on without one. So use it only to save work, never to protect a file.
    """
    while True:
        try:
            return try_lock(file)
        except BlockingIOError:
            time.sleep(0.1)
        except OSError:
            return


def flush(path):
    """Write a file's content, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)  # Windows flushes only the latter
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(old, new):
    """Rename the file `old` to `new`, which may exist.

    On Windows this fails while any program has `new` open or mapped, such as a virus scanner. Then it is tried again
    for RETRY_SECONDS.
    """
    deadline = time.monotonic() + (RETRY_SECONDS if os.name == "nt" else 0)
    while True:
        try:
            return os.replace(old, new)
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.1)


def link(target, path):
    """Make the symbolic link `path` to `target`. Returns whether this system and this file system have such links."""
    try:
        os.symlink(target, path)
    except (AttributeError, NotImplementedError):
        return False
    except OSError as error:
        # Windows gives EINVAL to users without the right to make links.
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise
        return False
    return True


def open_to_read(path):
    """The descriptor of a file for `read_at`. Close it with `os.close`."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


def read_at(descriptor, size, offset):
    """At most `size` bytes of an open file from `offset` on. Threads may share the descriptor."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    with _seeking:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


def free_memory():
    """The bytes of memory that are still free: on the machine, and below the limit of a container or a Slurm job."""
    if not hasattr(os, "sysconf"):
        # MEMORYSTATUSEX: the structure's size and the load in 4 bytes each, then the whole and the free memory.
        status = (ctypes.c_ulonglong * 8)(64)
        ctypes.windll.kernel32.GlobalMemoryStatusEx(status)
        return status[2]
    free = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError, ValueError), open("/proc/meminfo") as file:
        free += [1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable:")]
    return min(free + free_in_groups())


def free_in_groups(root=""):
    """The bytes left below the limit of each Linux control group that holds this process, such as that of a container.

    Files that the system keeps in memory count as free. `root`: the folder that holds /proc and /sys; by default /.
    """
    free, groups = [], []
    with contextlib.suppress(OSError), open(f"{root}/proc/self/cgroup") as file:
        groups = [line.rstrip("\n").split(":", 2) for line in file]
    for _, kinds, path in groups:
        if not kinds:  # version 2
            folder, limit, usage, prefix = f"{root}/sys/fs/cgroup", "memory.max", "memory.current", ""
        elif "memory" in kinds.split(","):  # version 1
            folder, prefix = f"{root}/sys/fs/cgroup/memory", "total_"
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        names = [name for name in path.split("/") if name]
        for count in range(len(names) + 1):
            group = "/".join([folder, *names[:count]])
            # OSError: a container does not see the groups around it. ValueError: "max", which is no limit.
            with contextlib.suppress(OSError, ValueError):
                most, used = (int(_content(f"{group}/{name}")) for name in (limit, usage))
                pages = dict(line.split() for line in _content(f"{group}/memory.stat").splitlines())
                files = sum(int(pages[f"{prefix}{kind}_file"]) for kind in ("active", "inactive"))
                free.append(most - used + files)
    return free


def _content(path):
    with open(path) as file:
        return file.read()


def peak_memory():
    """The largest number of bytes of memory that this process has used so far; None if the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def processor():
    """Text on the processors as /proc/cpuinfo has it: a block of lines NAME: VALUE for each. On other systems "".

    On Windows, one line with the manufacturer's name.
    """
    with contextlib.suppress(OSError), open("/proc/cpuinfo", errors="replace") as file:
        return file.read()
    return os.environ.get("PROCESSOR_IDENTIFIER", "")

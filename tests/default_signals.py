"""Resets the signals that the caller of the tests ignores. Import this before `runtime`, which asks for them.

Under `nohup` SIGHUP is ignored, and in the background of a shell's script SIGINT. The commands that tests start would
inherit that. Windows has no SIGHUP.
"""

import signal

if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

"""Pack a data set into one file of ready images: `python pack.py --data_path SOURCE --imsize 128 --out FILE`.

`train.py` and `test.py` read FILE by --data_path and --test_data_path. `--help` lists the options.
"""

import system

system.hold_signals()  # until `runtime.quit_on_signals`, because an interrupted import would print a traceback

import runtime  # noqa: E402
from command.line import CommandLine  # noqa: E402
from packing.work import pack  # noqa: E402


def main():
    command = CommandLine(program="pack")
    with command.naming_origins():
        parameters, packing = command.parameters_of_pack()
        runtime.quit_on_signals(cleanly=True, with_paddle=False)
        for line in pack(parameters, packing):
            print(line)
    return 0


if __name__ == "__main__":
    runtime.run(main)

"""Draw samples from a trained generator and measure them: `python test.py --pretrained_model FILE_OR_RUN_FOLDER`."""

import system

system.hold_signals()  # until `runtime.quit_on_signals`, because an interrupted import would print a traceback

import runtime  # noqa: E402
from command.line import CommandLine  # noqa: E402
from processes import collectives  # noqa: E402


def main():
    command = CommandLine(program="test")
    with command.naming_origins():
        return test(command)


def test(command):
    loaded = None
    if needed := command.checkpoint_to_load():
        # Imported only here, because it imports paddle, which is slow. Other mistakes are reported without it.
        from checkpoint import load_file_or_run

        loaded = load_file_or_run(*needed, wanted=("G", "G_ema"))
    parameters = command.parameters(loaded and loaded.parameters)
    runtime.quit_on_signals()
    runtime.start(parameters)
    collectives.require_same(parameters.shared(), "give every process the same command")
    from tester import Tester

    Tester(parameters, loaded).test()
    return 0


if __name__ == "__main__":
    runtime.run(main)

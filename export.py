"""Write a generator as a folder for other programs: `python export.py --pretrained_model FILE_OR_RUN --out DIR`."""

import system

system.hold_signals()  # until `runtime.quit_on_signals`, because an interrupted import would print a traceback

import contextlib  # noqa: E402
import dataclasses  # noqa: E402

import runtime  # noqa: E402
from command.line import CommandLine  # noqa: E402
from command.refusals import check_new_folder  # noqa: E402
from utils import UserError  # noqa: E402


def main():
    command = CommandLine(program="export")
    out = command.own_options().out
    if out:
        check_new_folder(out)
    needed = command.checkpoint_to_load()
    if not needed:
        raise UserError("give the generator to export by --pretrained_model: a checkpoint or a run's folder")

    # Imported only here, because they import paddle, which is slow. Other mistakes are reported without it.
    from checkpoint import load_file_or_run
    from drawing.generator import OpenGenerator
    from drawing.writing import new_folder
    from exporting.folder import export

    loaded = load_file_or_run(*needed, wanted=("G", "G_ema"))
    parameters = dataclasses.replace(command.parameters_to_draw(loaded.parameters), device="cpu")
    runtime.quit_on_signals(cleanly=True)
    runtime.start(parameters)
    generator = OpenGenerator(parameters, loaded)
    print(f"{generator.file}: {generator.description}", flush=True)
    generator.say_caution()
    with contextlib.nullcontext(out) if out else new_folder("exported") as folder:
        for line in export(generator, loaded, folder):
            print(line, flush=True)
        print(f"wrote {folder}")
    return 0


if __name__ == "__main__":
    runtime.run(main)

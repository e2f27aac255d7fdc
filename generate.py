"""Draw images from a generator by class and seed. `python generate.py` needs no option; `--help` lists the options."""

import system

system.hold_signals()  # until `runtime.quit_on_signals`, because an interrupted import would print a traceback

import contextlib  # noqa: E402
import dataclasses  # noqa: E402
from pathlib import Path  # noqa: E402

import runtime  # noqa: E402
from command.line import CommandLine  # noqa: E402
from command.refusals import check_drawing  # noqa: E402
from utils import writing  # noqa: E402

WEIGHTS = Path(__file__).with_name("weights")
# The name of the file in a new folder, by kind of output. Images lie directly in the folder.
NAMES = {"images": "", "grid": "grid.png", "film": "walk.gif"}


def main():
    command = CommandLine(program="generate")
    drawing = command.own_options()
    check_drawing(drawing, command.spelled)
    # Without an option that chooses images: a grid of each generator in weights/.
    overview = command.spelled <= {"out"}
    files = [command.given.get("pretrained_model") or WEIGHTS / "acgan-digits.safetensors"]
    if overview:
        files = sorted(WEIGHTS.glob("*.safetensors")) or files
        drawing = dataclasses.replace(drawing, grid=True)

    # Imported only here, because they import paddle, which is slow. Other mistakes are reported without it.
    from checkpoint import load_file_or_run
    from drawing.generator import OpenGenerator
    from drawing.writing import chosen_classes, draw, new_folder

    checkpoints = [load_file_or_run(file, wanted=("G", "G_ema")) for file in files]
    parameters = [command.parameters_to_draw(loaded.parameters) for loaded in checkpoints]
    runtime.quit_on_signals(cleanly=True)
    runtime.start(parameters[0])
    generators = [OpenGenerator(*both) for both in zip(parameters, checkpoints, strict=True)]
    classes = [chosen_classes(generator, drawing) for generator in generators]
    place = contextlib.nullcontext(Path(drawing.out)) if drawing.out else new_folder("generated")
    with writing("--out", drawing.out), place as out:
        for generator, labels in zip(generators, classes, strict=True):
            print(f"{generator.file}: {generator.description}", flush=True)
            if not overview:  # the generators in weights/ draw well
                generator.say_caution()
            if overview:
                out.mkdir(parents=True, exist_ok=True)
                path = out / f"{generator.file.stem}.png"
            else:
                path = out if drawing.out else out / NAMES[drawing.kind]
            draw(generator, drawing, labels, path)
    return 0


if __name__ == "__main__":
    runtime.run(main)

"""Convert a checkpoint, of this project or published: `python convert.py SOURCE TARGET.safetensors|TARGET.pdparams`.

A .safetensors file has this project's format. A .pdparams file is for `paddle.load`: a dictionary with `step`,
`parameters`, `class_names` and a state dictionary for each of `G`, `D` and `G_ema` that SOURCE has. Neither file holds
optimizer states.
"""

import system

system.hold_signals()  # until `runtime.quit_on_signals`, because an interrupted import would print a traceback

import argparse  # noqa: E402
from pathlib import Path  # noqa: E402

import runtime  # noqa: E402
from utils import UserError, atomic_path, plural  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a checkpoint, or a run's folder")
    parser.add_argument("target", help="the file to write; its ending, .safetensors or .pdparams, chooses the format")
    options = parser.parse_args()
    target = Path(options.target)
    if target.suffix not in (".safetensors", ".pdparams"):
        raise UserError(
            f"TARGET {target} ends neither in .safetensors nor in .pdparams: give a name that ends in one of them"
        )
    if target.exists():
        raise UserError(f"TARGET {target} exists already: give another name")
    if not target.parent.is_dir():
        raise UserError(f"TARGET {target}: there is no folder {target.parent}; make it, or give another name")
    import paddle

    import checkpoint

    runtime.quit_on_signals(cleanly=True)
    loaded = checkpoint.load_file_or_run(options.source, "SOURCE", wanted=("G", "D", "G_ema"))
    step, parameters, parts, names = loaded.step, loaded.parameters, loaded.parts, loaded.class_names
    try:
        if target.suffix == ".safetensors":
            checkpoint.save(target, step, parameters, parts, class_names=names)
        else:
            content = {"format": checkpoint.FORMAT, "step": step, "parameters": parameters, "class_names": list(names)}
            with atomic_path(target) as temporary:
                paddle.save(content | parts, str(temporary))
    except (UserError, OSError) as error:
        reason = error if isinstance(error, UserError) else f"{target} cannot be written: {error.strerror}"
        raise UserError(f"TARGET {reason}; make room there, or give another name") from None
    print(f"wrote {target}: {', '.join(parts)} after {plural(step, 'step')}")
    return 0


if __name__ == "__main__":
    runtime.run(main)

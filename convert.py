"""Rewrite a checkpoint, ours or a published one: `python convert.py SOURCE TARGET.safetensors|TARGET.pdparams`.

A .safetensors file is this project's format; a .pdparams file is what `paddle.load` reads: a dictionary with `step`,
`parameters` and a state dictionary for each of `G`, `D`, `G_ema` that there is. Optimizer states are left behind.
"""

import argparse
from pathlib import Path

import runtime
from utils import UserError, atomic_path, plural


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a checkpoint, or a run's folder")
    parser.add_argument("target", help="the file to write, by its ending .safetensors or .pdparams")
    options = parser.parse_args()
    target = Path(options.target)
    if target.suffix not in (".safetensors", ".pdparams"):
        raise UserError(f"TARGET {target} ends neither in .safetensors nor in .pdparams")
    if target.exists():
        raise UserError(f"TARGET {target} exists already: give another name")
    if not target.parent.is_dir():
        raise UserError(f"TARGET {target}: there is no folder {target.parent}")
    import paddle

    import checkpoint

    step, parameters, parts, _ = checkpoint.load_from(options.source, ("G", "D", "G_ema"), "SOURCE")[0]
    if target.suffix == ".safetensors":
        checkpoint.save(target, step, parameters, parts)
    else:
        with atomic_path(target) as temporary:
            content = {"format": checkpoint.FORMAT, "step": step, "parameters": parameters}
            paddle.save(content | parts, str(temporary))
    print(f"wrote {target}: {', '.join(parts)} after {plural(step, 'step')}")
    return 0


if __name__ == "__main__":
    runtime.run(main)

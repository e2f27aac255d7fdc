"""Make a page of pictures of a run or a checkpoint: `python gallery.py RUN` writes one HTML file."""

import system

system.hold_signals()  # until `runtime.quit_on_signals`, because an interrupted import would print a traceback

import contextlib  # noqa: E402
from pathlib import Path  # noqa: E402

import runtime  # noqa: E402
from command.line import CommandLine  # noqa: E402
from command.refusals import check_page  # noqa: E402
from utils import atomic_path, writing  # noqa: E402


def main():
    command = CommandLine(program="gallery")
    page = command.own_options()
    check_page(page, command.given)

    # Imported only here, because they import paddle, which is slow. Other mistakes are reported without it.
    from checkpoint import load_file_or_run
    from drawing.writing import new_folder
    from pages.gallery_page import gallery_page

    loaded = load_file_or_run(command.given["pretrained_model"], "RUN", wanted=("G", "G_ema"))
    parameters = command.parameters_to_draw(loaded.parameters)
    runtime.quit_on_signals(cleanly=True)
    runtime.start(parameters)
    text = gallery_page(parameters, loaded, page.labels, page.lang)
    with contextlib.nullcontext() if page.out else new_folder("gallery") as folder:
        path = Path(page.out or folder / "gallery.html")
        with writing("--out", page.out), atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="replace")
    print(f"wrote {path}: {path.stat().st_size / 1e6:.1f} MB; open it in a browser")
    return 0


if __name__ == "__main__":
    runtime.run(main)

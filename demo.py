"""Play with a generator in a browser: `python demo.py --pretrained_model FILE_OR_RUN_FOLDER`. Stop it with Ctrl-C."""

import system

system.hold_signals()  # until `runtime.quit_on_signals`, because an interrupted import would print a traceback

import logging  # noqa: E402
import os  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402

import runtime  # noqa: E402
from command.line import CommandLine  # noqa: E402
from utils import UserError  # noqa: E402


def main():
    command = CommandLine(program="demo")
    serving, model = command.own_options(), command.given.get("pretrained_model")
    if not model:
        raise UserError(
            "give the generator by --pretrained_model, such as --pretrained_model sagan_models/acgan-digits-1"
        )
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        _prepare_gradio(folder)
        # Imported only here, because they import paddle, which is slow. Other mistakes are reported without it.
        from checkpoint import load_file_or_run
        from drawing.generator import OpenGenerator
        from pages.demo_images import Demo

        loaded = load_file_or_run(model, wanted=("G", "G_ema"))
        parameters = command.parameters_to_draw(loaded.parameters)
        try:
            from pages import demo_page
        except ImportError as error:
            raise UserError(f"{error}; demo.py needs Gradio: pip install -r requirements/demo.txt") from None
        runtime.quit_on_signals(cleanly=True)
        runtime.start(parameters)
        demo = Demo(OpenGenerator(parameters, loaded), folder, serving.lang)
        page = demo_page.build(demo, serving.lang)
        address = demo_page.serve(page, serving.host, serving.port)
        print(
            f"{demo.generator.file}: {demo.generator.description}\nopen {address} in a browser; Ctrl-C stops it",
            flush=True,
        )
        demo.generator.say_caution()
        try:
            while True:  # until a signal
                time.sleep(1)
        finally:
            page.close(verbose=False)


def _prepare_gradio(folder):
    """Let Gradio keep its files in `folder`, and send no statistics. Its other settings come from the options alone."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it prints a line for each request
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it prints a traceback for some hostile requests
    os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}


if __name__ == "__main__":
    runtime.run(main)

"""The page of demo.py: images by class and seed, walks, and SAGAN's attention, in a browser (Gradio).

Visitors are strangers. They choose numbers only: no input is a path, a file or text, and no file of this machine can be
asked for. One drawing runs at a time; the others wait.
"""

import functools
import math
import sys
from types import SimpleNamespace

import gradio as gr
import gradio.queueing

from pages.demo_images import FRAMES, SIDE, WIDEST
from pages.words import words
from utils import UserError, one_line, printable

WAITING = 100  # clicks in the queue; the next ones are refused
STYLE = ".pixels img { image-rendering: pixelated; } footer { display: none !important; }"
FONTS = ["system-ui", "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", "sans-serif"]


def build(demo, language):
    """The page, as `gradio.Blocks`."""
    w, generator = words(language), demo.generator
    classes = [(name, label) for label, name in enumerate(generator.class_names)]
    with gr.Blocks(title=w["demo"], analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(f"# {w['demo']}\n{_description(generator, w)}")
        with gr.Row():
            label = gr.Dropdown(classes, value=0, label=w["class"], elem_id="class")
            seed = _seed(0, w["a_seed"], elem_id="seed")
            truncation = gr.Slider(0, WIDEST, value=0, step=0.1, label=w["limit"], elem_id="truncation")
        with gr.Row():
            with gr.Column():
                image, save = _picture(w["image"], "image"), gr.DownloadButton(w["download"], elem_id="download")
            if demo.has_attention:
                with gr.Column():
                    looks = _picture(w["looks"], "looks")
                    gr.Markdown(w["click"])
            with gr.Column():
                walked = _picture(w["walk"], "walk")
                save_walked = gr.DownloadButton(w["download"], elem_id="download_walk")
                kind = gr.Radio([(w["to_seed"], "seed"), (w["to_class"], "class")], value="seed", label=w["walk_to"])
                other_seed = _seed(1, w["other_seed"])
                other_label = gr.Dropdown(classes, value=len(classes) - 1, label=w["other_class"])
                share = gr.Slider(0, 1, value=0.5, step=1 / (FRAMES - 1), label=w["share"], elem_id="share")

        chosen, ends = [label, seed, truncation], [kind, label, seed, other_label, other_seed, truncation, share]
        queue = {"concurrency_id": "drawing", "concurrency_limit": 1, "api_visibility": "private"}
        draws = {"fn": _refusing(demo.image), "inputs": chosen, "outputs": [image, save]}
        walks = {"fn": _refusing(demo.walk), "inputs": ends, "outputs": [walked, save_walked]}
        for start in (draws, walks):
            page.load(**start, **queue)
            gr.on([field.change for field in start["inputs"]], **start, **queue, trigger_mode="always_last")
        if demo.has_attention:

            def show_attention(label, seed, truncation, click: gr.SelectData):
                x, y = (_position(place, generator.parameters.imsize) for place in click.index)
                return _refusing(demo.attention)(label, seed, truncation, (y, x))

            image.select(show_attention, chosen, looks, **queue, trigger_mode="always_last")
    page.queue(max_size=WAITING)
    return page


def _description(generator, w):
    """The generator in the words `w`: its model, its steps, and whether its weights are a moving average."""
    model, step = generator.parameters.model, generator.step
    average = [w["average"]] if generator.part == "G_ema" else []
    return " · ".join([w["trained"].format(model=model, step=step) if step else model, *average])


def _seed(value, label, **how):
    """The field of a seed. It has no limits, because Gradio would refuse others in English. `Demo` refuses them."""
    return gr.Number(value, precision=0, label=label, **how)


def _picture(label, name):
    return gr.Image(
        label=label, height=SIDE, elem_id=name, elem_classes="pixels", interactive=False, format="png",
        buttons=["fullscreen"],
    )  # fmt: skip


def _position(place, side):
    """A clicked pixel as a share of the side of the picture of an image of `side` pixels; NaN if it is no number."""
    is_number = isinstance(place, (int, float)) and not isinstance(place, bool)
    return (place + 0.5) / (side * max(1, SIDE // side)) if is_number else math.nan


def _refusing(function):
    """`function`, whose UserErrors become messages on the page."""

    @functools.wraps(function)
    def refusing(*values):
        try:
            return function(*values)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None

    return refusing


def _say_error():
    error = sys.exc_info()[1]
    print(
        f"a click was refused: {type(error).__name__}: {printable(one_line(error), 200)}", file=sys.stderr, flush=True
    )


def serve(page, host, port):
    """Serve the page in threads of its own. Returns its address. Raises UserError if it cannot.

    It tells nobody about this machine, and serves no files but its own.
    """
    # A visitor's bad input is no fault of the program: a line replaces Gradio's traceback.
    gradio.queueing.traceback = SimpleNamespace(print_exc=_say_error)
    theme = gr.themes.Default(font=FONTS, font_mono=["monospace"])
    try:
        _, address, _ = page.launch(
            prevent_thread_lock=True, quiet=True, share=False, server_name=host, server_port=port, css=STYLE,
            theme=theme, allowed_paths=[], max_file_size=1, ssr_mode=False, mcp_server=False, footer_links=[],
            enable_monitoring=False,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise UserError(f"--host {host} --port {port}: the page cannot be served there: {error}") from None
    return address

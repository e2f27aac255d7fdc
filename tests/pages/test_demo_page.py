"""demo.py: its page in headless Chromium, many clicks at once, hostile requests; and how it starts and ends.

Tests of the page need Gradio (requirements/demo.txt), Playwright (requirements/browser.txt) and Chromium.
"""

import dataclasses
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from commands import LIMIT, ROOT, run, start
from drawn import opened
from PIL import Image
from small_models import MODELS

import checkpoint

NEEDED = ("gradio", "playwright")
LACKING = [name for name in NEEDED if not importlib.util.find_spec(name)]
in_a_browser = [pytest.mark.slow, pytest.mark.skipif(bool(LACKING), reason=f"needs {', '.join(LACKING)}")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(file, `OpenGenerator`) of a small SAGAN of ten classes, 32 pixels, in colour."""
    from parameters import Parameters

    values = MODELS["sagan"] | {"imsize": 32, "attention_size": 16, "num_classes": 10, "dataset": "fake", "z_dim": 20}
    generator = opened(dataclasses.replace(Parameters(), model="sagan", device="cpu", **values))
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    arrays = {name: tensor.numpy() for name, tensor in generator.network.state_dict().items()}
    checkpoint.save(path, 7, dataclasses.asdict(generator.parameters), {"G": arrays}, class_names=generator.class_names)
    return path, generator


def serve(folder, model, *options, **how):
    """(process of demo.py, address of its page)."""
    process = start(folder, ROOT / "demo.py", "--pretrained_model", model, "--device", "cpu", *options, **how)
    described, said = process.stdout.readline(), process.stdout.readline()
    assert described == f"{model}: sagan after 7 steps\n", process.communicate(timeout=LIMIT)[1]
    return process, re.fullmatch(r"open (http://127\.0\.0\.1:\d+/) in a browser; Ctrl-C stops it\n", said)[1]


@pytest.fixture(scope="module")
def page(model, tmp_path_factory):
    """The address of the page of a running demo.py, which must not have printed a traceback at the end."""
    folder = tmp_path_factory.mktemp("demo")
    process, address = serve(folder, model[0], env={**os.environ, "TMPDIR": str(folder)})
    yield address
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130 and "Traceback" not in err, err
    assert err.splitlines()[-1] == "demo.py: stopped by SIGINT" and list(folder.iterdir()) == []


@pytest.fixture
def browser():
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")  # else the one that Playwright installs
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def ask(page, number, *data, session="test", click=None):
    """The messages of the server about a call of the page's function `number`."""
    body = {"data": data, "fn_index": number, "session_hash": session, "event_data": click}
    header = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{page}gradio_api/queue/join", json.dumps(body).encode(), header)
    with urllib.request.urlopen(request, timeout=LIMIT) as answer:
        answer.read()
    with urllib.request.urlopen(f"{page}gradio_api/queue/data?session_hash={session}", timeout=LIMIT) as answer:
        messages = []
        for line in answer:
            if line.startswith(b"data:"):
                messages.append(json.loads(line[5:]))
                if messages[-1]["msg"] in ("process_completed", "close_stream"):
                    return messages


def drawn(messages):
    """Whether the server has drawn what was asked for."""
    return messages[-1]["msg"] == "process_completed" and messages[-1]["success"]


class TestPage:
    pytestmark = in_a_browser

    def test_it_draws_what_a_visitor_chooses(self, page, model, browser, tmp_path):
        _, generator = model
        problems, addresses = [], []
        visit = browser.new_page(viewport={"width": 1300, "height": 1000})
        visit.set_default_timeout(300_000)  # milliseconds
        visit.on("pageerror", lambda error: problems.append(str(error)))
        visit.on("request", lambda request: addresses.append(request.url))
        visit.goto(page)
        visit.wait_for_selector("#image img")
        visit.wait_for_selector("#walk img")

        def download(button, name):
            """The image in the file that a button downloads, as soon as the name of the file is `name`."""
            for _ in range(200):
                with visit.expect_download() as found:
                    visit.click(button)
                if found.value.suggested_filename == name:
                    return pixels(found.value.path())
                visit.wait_for_timeout(200)
            raise AssertionError(f"{found.value.suggested_filename} instead of {name}")

        # A class, a seed, a truncation.
        assert (download("#download", "0000-a-seed0.png") == generator.draw([0], [0])[0]).all()
        visit.locator("#seed input").fill("12")
        visit.locator("#class input").click()
        visit.get_by_role("option", name="d", exact=True).click()
        assert (download("#download", "0003-d-seed12.png") == generator.draw([3], [12])[0]).all()
        visit.locator("#truncation input[type=number]").fill("0.5")
        visit.locator("#truncation input[type=number]").press("Enter")
        expected = generator.draw([3], [12], truncation=0.5)[0]
        assert (download("#download", "0003-d-seed12-truncation0.5.png") == expected).all()
        # The interpolation.
        visit.locator("#share input[type=number]").fill("1")
        visit.locator("#share input[type=number]").press("Enter")
        end = download("#download_walk", "0003-d-seed12-to-seed1-truncation0.5-16of16.png")
        assert np.abs(end.astype(int) - generator.draw([3], [1], truncation=0.5)[0]).max() <= 1
        # The attention. While the image is drawn anew, Gradio covers it, and a click is lost.
        for _ in range(60):
            box = visit.locator("#image img").bounding_box()
            visit.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            visit.wait_for_timeout(5_000)
            if visit.locator("#looks img").count():
                break
        visit.wait_for_selector("#looks img", timeout=1_000)
        assert problems == [] and {address.split("/")[2] for address in addresses if "//" in address} == {
            page.split("/")[2]
        }
        for width in (390, 1300):
            visit.set_viewport_size({"width": width, "height": 900})
            assert visit.evaluate("document.documentElement.scrollWidth") <= width

    def test_fifty_clicks_at_once_are_all_answered(self, page):
        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(lambda seed: ask(page, 0, seed % 10, seed, 0, session=f"s{seed}"), range(50)))
        assert all(map(drawn, answers))

    def test_bad_input_does_not_bring_it_down(self, page):
        bad = (-1, 10, 0.5, "0", None, [0], {"path": "/etc/passwd"}, 2**70, "x" * 10_000)
        for place, value in enumerate(bad):
            for data in ((value, 0, 0), (0, value if value != 10 else -1, 0), (0, 0, value)):
                if data not in ((0, 0, 0.5), (0, 0.5, 0)):  # a truncation; a seed that Gradio rounds
                    assert not drawn(ask(page, 0, *data, session=f"bad{place}")), data
        clicks = ({"index": [1e9, 0]}, {"index": ["a", 0]}, {"index": None}, {}, None, {"index": [0] * 99})
        config = json.load(urllib.request.urlopen(f"{page}config", timeout=LIMIT))
        select = next(
            call["id"] for call in config["dependencies"] if [event for _, event in call["targets"]] == ["select"]
        )
        for click in clicks:
            assert not drawn(ask(page, select, 0, 0, 0, session="click", click=click)), click
        assert drawn(ask(page, select, 0, 0, 0, session="click", click={"index": [9, 9], "value": None}))
        assert drawn(ask(page, 0, 0, 0, 0))

    @pytest.mark.parametrize(
        "path", ["/etc/passwd", str(ROOT / "demo.py"), "demo.py", "../demo.py", "..%2f..%2fetc%2fpasswd", "http://a.b/"]
    )
    def test_no_file_of_this_machine_is_served(self, page, model, path):
        for place in (f"gradio_api/file={path}", f"file={path}", f"gradio_api/file={model[0]}", f"static/{path}"):
            with pytest.raises(urllib.error.HTTPError) as refusal:
                urllib.request.urlopen(page + place, timeout=LIMIT)
            assert refusal.value.code in (403, 404), place

    def test_nothing_can_be_uploaded(self, page):
        body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nhello\r\n--x--\r\n'
        header = {"Content-Type": "multipart/form-data; boundary=x"}
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(urllib.request.Request(f"{page}gradio_api/upload", body, header), timeout=LIMIT)
        assert refusal.value.code == 413

    def test_a_chinese_page_has_no_english(self, model, tmp_path):
        from pages import demo_page, words
        from pages.demo_images import Demo

        page = demo_page.build(Demo(model[1], tmp_path, "cn"), "cn").get_config_file()
        shown = [component["props"] for component in page["components"]]
        labels = [props["label"] for props in shown if props.get("show_label") and props.get("label")]
        known = [texts[1] for texts in words.WORDS.values()]
        assert "插值终点" in labels and set(labels) <= set(known)
        assert "sagan，7 步" in next(props["value"] for props in shown if str(props.get("value")).startswith("# "))
        assert all(props["show_label"] for props in shown if props["name"] in ("radio", "dropdown", "number"))

    def test_a_used_port_is_refused(self, model, tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            code, _, err = run(tmp_path, ROOT / "demo.py", model[0], "--port", port)
        assert code == 2 and err.startswith(f"demo.py: --host 127.0.0.1 --port {port}: the page cannot be served"), err
        assert err.count("\n") == 1


def test_without_gradio_it_says_how_to_install_it(model, tmp_path):
    (tmp_path / "gradio.py").write_text("raise ImportError('No module named gradio')")
    code, out, err = run(tmp_path, ROOT / "demo.py", model[0], env={**os.environ, "PYTHONPATH": str(tmp_path)})
    said = "demo.py: No module named gradio; demo.py needs Gradio: pip install -r requirements/demo.txt\n"
    assert (code, out, err) == (2, "", said)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give the generator by --pretrained_model, such as --pretrained_model sagan_models/acgan-digits-1"),
        (["nothing"], "--pretrained_model nothing: there is no such file"),
        (["nothing", "--port", "0"], "--port: '0' is not a whole number from 1 to 65535"),
    ],
)
def test_without_a_generator_it_is_refused(tmp_path, options, message):
    assert run(tmp_path, ROOT / "demo.py", *options) == (2, "", f"demo.py: {message}\n")

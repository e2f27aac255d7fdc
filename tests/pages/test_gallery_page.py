"""The page of pictures: one file, complete, in both languages, for runs and for published checkpoints."""

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, SMALL, run, start
from drawn import drawn_generator
from PIL import Image
from published_files import published
from test_faults import fill, mounted

import checkpoint
from command.line import CommandLine
from command.refusals import check_page
from pages import attention, gallery_page
from pages.embedded import LARGEST
from pages.words import LANGUAGES, WORDS
from pictures import save_image
from utils import RUN_FILE, UserError


class Page(HTMLParser):
    """The content of a page: `images` by section, `text` by section, `titles`, `addresses` that it would load."""

    def __init__(self, text):
        super().__init__()
        self.section, self.images, self.text, self.addresses, self.tags = "", {}, {}, [], []
        self.feed(text)
        self.close()
        assert not self.tags, self.tags

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "section":
            self.section = attributes["id"]
        self.addresses += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag == "img":
            self.images.setdefault(self.section, []).append(attributes["src"])
        if tag not in ("img", "meta", "input", "br", "path", "circle", "polyline"):
            self.tags.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass  # in SVG

    def handle_endtag(self, tag):
        assert self.tags.pop() == tag

    def handle_data(self, data):
        self.text[self.section] = self.text.get(self.section, "") + data


def pixels(uri):
    """The image in a data URI, uint8 [C, H, W]."""
    kind, data = re.fullmatch("data:image/(png|webp);base64,(.+)", uri).groups()
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.format.lower() == kind
        return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


@pytest.fixture
def saved(make_parameters, tmp_path):
    """A run's folder of a small SAGAN: `saved(**changes)` gives its parameters and its newest checkpoint."""

    def save(**changes):
        p = make_parameters("sagan", imsize=32, attention_size=16, inception_weights="none", **changes)
        arrays = {name: tensor.numpy() for name, tensor in drawn_generator(p).state_dict().items()}
        folder = tmp_path / "<b>run"
        for name in ("", "weights", "samples"):
            (folder / name).mkdir()
        (folder / RUN_FILE).write_text(p.to_yaml())
        (folder / "log.txt").write_text(
            "2026-01-02 03:04:05 step 1 d_real 0.5\n2026-01-02 03:04:05 step 2 d_real 0.4\n"
        )
        for step in (1, 2):
            arrays["attention.gamma"][:] = step / 4
            path = folder / "weights" / f"step-{step:08d}.safetensors"
            checkpoint.save(path, step, dataclasses.asdict(p), {"G": arrays}, class_names=("<i>", "b", "c", "d", "e"))
            save_image(folder / "samples" / f"step-{step:08d}.png", np.full((64, 80, 3), step, np.uint8))
        return p, checkpoint.load_file_or_run(folder)

    return save


def test_a_page_is_complete(saved, monkeypatch):
    monkeypatch.setattr(gallery_page, "CLASSES", 3)
    p, loaded = saved(data_path=None)
    page = Page(text := gallery_page.gallery_page(p, loaded, "auto", "en"))
    counts = {section: len(images) for section, images in page.images.items()}
    shown = 1 + len(attention.POINTS)
    assert counts == {
        "grid": 3 * 8, "film": 2, "within": 3 * 8, "between": 2 * 8, "truncation": 6 * 8, "attention": 3 * shown,
        "attention_over": 2 * shown,
    }  # fmt: skip
    assert all(address.startswith(("data:", "#")) for address in page.addresses) and "http" not in text
    assert "<i>" in page.text["grid"] and "<i>" not in text and "<b>run" not in text  # names are escaped
    assert "3 of 5 classes" in page.text["grid"] and "--data_path has other classes" in page.text["grid"]
    assert "γ = 0.250" in page.text["attention_over"] and "γ = 0.500" in page.text["attention_over"]
    assert "d_real" in page.text["curves"] and "reports" not in page.text
    # The pictures are those of the generator: classes 0, 2 and 4 are shown.
    generator = gallery_page.OpenGenerator(p, loaded)
    drawn = generator.grid([0, 2, 4], range(8))
    assert all((pixels(uri) == image).all() for uri, image in zip(page.images["grid"], drawn, strict=True))
    assert (pixels(page.images["truncation"][-1]) == generator.draw([2], [7], 4.0)[0]).all()
    assert (pixels(page.images["between"][7]) == pixels(page.images["between"][8])).all()  # both are class 2


def test_reports_stand_beside_published_figures(saved, monkeypatch):
    monkeypatch.setattr(gallery_page, "CLASSES", 1)
    p, loaded = saved(data_path=None)
    folder = loaded.path.parents[1] / "test-00000002"
    folder.mkdir()
    settings = {"num_classes": 5, "classes drawn": 5, "num_samples": 100, "number of real images": 100}
    (folder / "report.json").write_text(json.dumps({"figures": {"fid": 18.25}, "settings": settings}))
    for recipe, has_figures in (("sagan-imagenet", True), ("mine", False)):
        p = dataclasses.replace(p, recipe=recipe)
        text = Page(gallery_page.gallery_page(p, loaded, "0", "en")).text["reports"]
        assert "18.2500" in text
        assert all((word in text) == has_figures for word in ("paper", "18.65", "replication", "18.1482"))


def test_figures_and_fixed_reasons_are_in_the_language_of_the_page(saved):
    p, loaded = saved(data_path=None)
    run = loaded.path.parents[1]
    with open(run / "log.txt", "a") as log:
        log.write("2026-01-02 03:04:05 measured at step 2: inception_score_std 0.25\n")
    (run / "test").mkdir()
    settings = {"num_classes": 5, "classes drawn": 5, "num_samples": 100, "number of real images": 100}
    (run / "test" / "report.json").write_text(json.dumps({"figures": {"intra_fid": 18.25}, "settings": settings}))
    for language, texts in (
        ("en", ("Inception Score, standard deviation over 10 splits", "intra-FID", "has other classes than")),
        ("cn", ("Inception Score，10 份的标准差", "类内 FID", "的类别与生成器不同")),
    ):
        gallery = gallery_page._Gallery(p, loaded, "0", language)
        assert gallery.curves()["charts"][0]["name"] == texts[0]
        assert gallery.reports()["found"][0]["table"][0][0] == texts[1]
        assert texts[2] in gallery._training_images[1]


def test_a_large_model_gives_a_page_below_20_mb(saved, monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (3, 256, 256), np.uint8)  # noise is the hardest to compress
    size = len(gallery_page.image_uri(image))
    assert max(pixels(gallery_page.image_uri(image)).shape) == LARGEST
    images = 10 * (4 + 8) + 2 * 4 * 8 + 6 * 8 + 10 * 5 + (4 + 6) * 6
    film = len(
        gallery_page.picture_uri(Image.fromarray(np.random.default_rng(0).integers(0, 256, (640, 640, 3), np.uint8)))
    )
    assert images * size + 24 * film < 20e6


def test_every_word_is_in_both_languages_and_is_used():
    template = Path(gallery_page.__file__).with_name("gallery.html").read_text(encoding="utf-8")
    assert {*re.findall(r"\bw\.([a-z_]+)", template)} - {"get"} <= WORDS.keys()
    for name, texts in WORDS.items():
        assert len(texts) == len(LANGUAGES) and all(texts), name
        assert len({tuple(sorted(re.findall("{[a-z]+}", text))) for text in texts}) == 1, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "give the run or the checkpoint to show, such as: python gallery.py sagan_models/acgan-digits-1"),
        ("RUN --out page.txt", "--out: 'page.txt' is not a file name that ends in .html"),
        ("RUN --out none/page.html", "--out none/page.html: there is no folder none; make it, or give another name"),
        ("RUN --out there.html", "--out there.html exists already: give another name"),
        ("RUN --data_path nowhere", "--data_path nowhere does not exist"),
        ("RUN --lang de", "'de' is not one of en, cn"),
        ("RUN more", "'more' is not an option and not the value of one"),
        ("RUN --metrics fid", "--metrics is not an option"),
    ],
)
def test_wrong_options_are_refused(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.html").touch()
    with pytest.raises(UserError) as refusal:
        command = CommandLine(options.split(), "gallery")
        check_page(command.own_options(), command.given)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_an_unknown_class_is_refused(saved):
    p, loaded = saved()
    with pytest.raises(UserError, match="--labels: there is no class cat; the 5 classes are <i>, b, c, d, e; give"):
        gallery_page.gallery_page(p, loaded, "cat", "en")


@pytest.mark.parametrize(
    "kind",
    [
        "cifar10_netG_epoch_0.pth",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("paddle-sagan", "paddle-acgan", "sagan.pth", "sagan_legacy.pth", "imagenet_netG_epoch_0.pth")
        ),
    ],
)
def test_published_checkpoints_have_a_page(tmp_path, kind, capsys):
    path = published(tmp_path)[kind]
    (tmp_path / "empty").mkdir()
    command = CommandLine([str(path), "--data_path", str(tmp_path / "empty"), "--labels", "1,0"], "gallery")
    loaded = checkpoint.load_file_or_run(path, wanted=("G", "G_ema"))
    p = command.parameters_to_draw(loaded.parameters)
    page = Page(gallery_page.gallery_page(p, loaded, command.own_options().labels, "en"))
    assert len(page.images["grid"]) == 16 and ("attention" in page.images) == ("sagan" in kind)
    assert "Left out: " in page.text["grid"] and str(tmp_path / "empty") in page.text["grid"]
    assert "film" not in page.text and "the page leaves out “Nearest real images”: " in capsys.readouterr().err
    generator = gallery_page.OpenGenerator(p, loaded)
    if p.imsize <= 64:
        assert (pixels(page.images["grid"][2]) == generator.draw([1], [2])[0]).all()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps on scikit-learn's digits."""
    folder = tmp_path_factory.mktemp("trained")
    code, _, err = run(folder, ROOT / "train.py", *SMALL, "--total_step", 2, "--sample_step", 1)
    assert code == 0, err
    return folder / "sagan_models" / "acgan-digits-1"


@pytest.mark.slow
def test_the_command_writes_a_page_into_a_new_folder(trained, tmp_path):
    texts = []
    for number, language in ((1, "cn"), (2, "en")):
        code, out, err = run(tmp_path, ROOT / "gallery.py", trained, "--lang", language)
        path = Path("sagan_models", f"gallery-{number}", "gallery.html")
        assert code == 0 and out == f"wrote {path}: 0.3 MB; open it in a browser\n", (out, err)
        texts.append((tmp_path / path).read_text(encoding="utf-8"))
    chinese, page = map(Page, texts)
    assert chinese.images == page.images and "生成样本" in texts[0]
    assert len(page.images["grid"]) == 120 and len(page.images["neighbours"]) == 50 and len(page.images["film"]) == 2
    assert "All 1437 training images were searched. Median distance" in page.text["neighbours"]
    assert str(trained.parent) not in texts[1] and "--total_step2" in page.text["settings"]
    assert not {"--save_path", "--name", "--pretrained_model"} & {*re.findall("--[a-z_]+", page.text["settings"])}


@pytest.mark.slow
def test_a_full_disk_is_named(trained, tmp_path):
    with mounted(tmp_path / "disk", 2**20) as disk:
        fill(disk, 2**13)
        code, out, err = run(disk, ROOT / "gallery.py", trained, "--out", disk / "page.html")
        assert (code, out) == (2, ""), err
        assert err.splitlines()[-1] == (
            f"gallery.py: --out {disk / 'page.html'} cannot be written: No space left on device"
        )
        assert [path.name for path in disk.iterdir()] == ["ballast"]


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(trained, tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = 'gallery.py'\n"
    code += "import gallery, runtime, utils\nutils.FIRST_LINE, utils.LINES_APART = 0, 0\nruntime.run(gallery.main)"
    process = start(tmp_path, "-c", code, trained, "--out", "page.html")
    assert process.stderr.readline().startswith("sections of the page")
    process.send_signal(2)
    _, err = process.communicate()
    assert process.returncode == 130 and err.splitlines()[-1] == "gallery.py: stopped by SIGINT"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"no weights", b""])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "weights").write_bytes(content)
    code, out, err = run(tmp_path, ROOT / "gallery.py", "weights")
    assert (code, out) == (2, "") and err.startswith("gallery.py: RUN weights is ") and err.count("\n") == 1, err
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]

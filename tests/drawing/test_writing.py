"""The files and the refusals of generate.py, for checkpoints of every format."""

import shutil

import numpy as np
import pytest
from commands import ROOT, run, start, wait_for
from PIL import Image
from published_files import PTH, published
from test_faults import fill, mounted

import checkpoint
import pictures
import sampler
from command.line import CommandLine
from command.refusals import check_drawing
from drawing.generator import OpenGenerator, load_generator
from drawing.writing import chosen_classes, draw, new_folder
from utils import UserError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small generator of ten classes and 32 pixels. Without its discriminator, the recipe gives the classes."""
    return shutil.copy(PTH / "cifar10_netG_epoch_0.pth", tmp_path_factory.mktemp("model") / "netG_epoch_0.pth")


def generate(model, *options):
    """generate.py with `options`, in this process. Returns its generator."""
    command = CommandLine(["--pretrained_model", str(model), *map(str, options)], "generate")
    drawing = command.own_options()
    check_drawing(drawing, command.spelled)
    loaded = checkpoint.load_file_or_run(model, wanted=("G", "G_ema"))
    generator = OpenGenerator(command.parameters_to_draw(loaded.parameters), loaded)
    draw(generator, drawing, chosen_classes(generator, drawing), drawing.out)
    return generator


def pixels(path, factor=1):
    """The image in a file of an image enlarged by `factor`, uint8 [C, H, W]."""
    with Image.open(path) as image:
        return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)[:, ::factor, ::factor]


def test_images_are_the_samples_of_test_py(model, tmp_path, capsys):
    """Sample k of test.py with one class is the image with seed k; it is enlarged from 32 to 64 pixels."""
    out = tmp_path / "images"
    options = ["--truncation", 1.5, "--manual_seed", 3]
    generate(model, "--labels", "7,2", "--seeds", "0-2,17", *options, "--out", out)
    assert f"wrote {out}: 8 images of 2 classes" in capsys.readouterr().out
    names = [f"{label:04d}-seed{seed:04d}.png" for label in (2, 7) for seed in (0, 1, 2, 17)]
    assert sorted(path.name for path in out.iterdir()) == names
    test = ["--pretrained_model", str(model), "--metrics", "none", "--labels", "7", *map(str, options)]
    parameters = CommandLine(test, "test").parameters(checkpoint.load(model).parameters)
    frozen = sampler.snapshot(load_generator(parameters, checkpoint.load(model))[0], parameters)
    samples = sampler.generate(frozen, parameters, range(18), [7] * 18)
    for seed in (0, 1, 2, 17):
        assert (pixels(out / f"0007-seed{seed:04d}.png", 2) == samples[seed]).all()


def test_a_grid_has_a_row_for_each_class_and_a_column_for_each_seed(model, tmp_path):
    generator = generate(model, "--grid", "--labels", "uniform", "--seeds", "4,0", "--out", tmp_path / "grid.png")
    grid = pixels(tmp_path / "grid.png")
    assert grid.shape[1] == 10 * 66 + 2
    assert (grid[:, 2 + 3 * 66 :, -66:][:, :64:2, :64:2] == generator.draw([3], [0])[0]).all()


def test_without_labels_the_first_ten_classes_are_drawn(model, tmp_path):
    generate(model, "--grid", "--num_classes", 12, "--seeds", "0", "--out", tmp_path / "grid.png")
    assert pixels(tmp_path / "grid.png").shape[1] == 10 * 66 + 2


@pytest.mark.parametrize("walk", ["0,7,12", "classes"])
@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_a_film_walks_between_seeds_or_classes(model, tmp_path, walk, ending):
    path = tmp_path / f"film.{ending}"
    generator = generate(model, "--interpolate", walk, "--labels", "3,8", "--frames", 6, "--out", path)
    with Image.open(path) as film:
        assert film.n_frames == 6
        film.seek(4 if walk == "0,7,12" else 3)
        frame = np.asarray(film.convert("RGB")).astype(int)
    if walk == "classes":
        assert frame.shape[1] == 5 * 130 + 2  # a column for each of ten seeds, in two rows
        expected = pictures.captioned(generator.draw([8] * 10, range(10)), [f"seed {k}" for k in range(10)], "8 to 3")
    else:
        expected = pictures.captioned(generator.draw([3, 8], [12, 12]), ["3", "8"])
    assert np.abs(frame - expected).mean() < 8  # a GIF has 256 colours


@pytest.mark.parametrize(
    "kind", ["paddle-sagan", "paddle-acgan", "sagan.pth", "sagan_legacy.pth", "imagenet_netG_epoch_0.pth"]
)
def test_published_checkpoints_draw(tmp_path, kind):
    path = published(tmp_path)[kind]
    generator = generate(path, "--labels", "1", "--seeds", "0,5", "--out", tmp_path / "images")
    image = pixels(tmp_path / "images" / "0001-seed0005.png")
    assert image.shape == (3, 128, 128) and (image == generator.draw([1], [5])[0]).all() and image.std() > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--grid --interpolate 0,1", "--grid writes a picture and --interpolate a film: give one of them"),
        ("--frames 9", "--frames has no effect without --interpolate: leave it out"),
        ("--interpolate 0,1 --seeds 3", "--interpolate and --seeds both choose the seeds: give one of them"),
        ("--interpolate 4", "--interpolate 4 names one seed: give two or more, such as 0,7,12"),
        ("--interpolate 0-9 --frames 9", "--frames 9 is less than the 10 seeds of --interpolate: give more"),
        ("--interpolate classes --labels 3", "--interpolate classes needs two or more classes: give them by --labels"),
        ("--interpolate classes --frames 9", "--frames 9 is less than the 10 classes of --labels: give more"),
        ("--interpolate cat", "'cat' is not `classes`, or a list of whole numbers and rising ranges, such as 0-15"),
        (
            "--seeds 3-1",
            "'3-1' is not a list of whole numbers and rising ranges, such as 0-15",
        ),
        ("--seeds 0-10000", "'0-10000' is not a list of whole numbers and rising ranges"),
        (
            "--labels cat",
            "--labels: there is no class cat; the 10 classes are 0, 1, 2, 3, 4, …; give names, or",
        ),
        ("--labels 10", "--labels: there is no class 10; "),
        ("--labels all", "give names, or numbers from 0 to 9; uniform draws all classes"),
        ("--grid --seeds 0-9999", "--grid would write 410 million pixels, and the most is 100 million: give fewer"),
        ("--interpolate 0,1 --frames 1000", "--interpolate would write 164 million pixels"),
        ("--grid --out x", "--out x: --grid writes a file that ends in .png; give such a name"),
        ("--interpolate 0,1 --out x.png", "--out x.png: --interpolate writes a file that ends in .gif or .webp"),
        ("--out x.png", "--out x.png is one file, but each image is a file: give a folder, or add --grid or"),
        ("--out full", "--out full is not empty: give another folder"),
        ("--out full/file", "--out full/file exists already and is no folder: give another name"),
        ("--grid --out none/x.png", "--out none/x.png: there is no folder none; make it, or give another name"),
        ("--metrics fid", "--metrics is not an option"),
    ],
)
def test_wrong_options_are_refused(model, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError) as refusal:
        generate(model, *options.split())
    assert message in str(refusal.value) and "\n" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_new_folders_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("generated-1", "generated-2"):
        with new_folder("generated") as folder:
            assert folder.name == name
    (tmp_path / "sagan_models" / "generated-7").touch()
    with new_folder("generated") as folder:
        assert folder.name == "generated-8" and folder.is_dir()


def test_a_new_folder_goes_after_an_error_if_it_is_empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for files in ([], ["image.png"]):
        with pytest.raises(SystemExit), new_folder("generated") as folder:
            for name in files:
                (folder / name).touch()
            raise SystemExit(130)
        assert folder.exists() == bool(files)


def test_without_options_it_draws_a_grid_of_each_generator_it_brings_along(tmp_path):
    code, out, err = run(tmp_path, ROOT / "generate.py")
    assert code == 0 and err == "", err
    brought = sorted((ROOT / "weights").glob("*.safetensors"))
    assert "acgan-digits.safetensors" in [path.name for path in brought]
    for path in brought:
        assert f"{path}: " in out and path.stat().st_size < 4e6
        with Image.open(tmp_path / "sagan_models" / "generated-1" / f"{path.stem}.png") as grid:
            assert grid.size[1] >= 10 * 66 + 2  # ten classes


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "weights").write_bytes(b"no weights")
    code, out, err = run(tmp_path, ROOT / "generate.py", "--pretrained_model", "weights")
    assert (
        (code, out) == (2, "")
        and err.startswith("generate.py: --pretrained_model weights is ")
        and err.count("\n") == 1
    ), err
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_a_full_disk_is_named(model, tmp_path):
    with mounted(tmp_path / "disk", 2**20) as disk:
        fill(disk, 2**13)
        film = disk / "film.gif"
        code, _, err = run(
            disk,
            ROOT / "generate.py",
            "--pretrained_model",
            model,
            "--interpolate",
            "0,1",
            "--frames",
            20,
            "--out",
            film,
        )
        assert (code, err) == (2, f"generate.py: --out {film} cannot be written: No space left on device\n")
        assert [path.name for path in disk.iterdir()] == ["ballast"]


def test_a_folder_that_cannot_be_made_is_named_with_its_option(model, tmp_path):
    code, _, err = run(tmp_path, ROOT / "generate.py", "--pretrained_model", model, "--out", "/proc/x")
    assert (code, err) == (2, "generate.py: --out /proc/x cannot be written: No such file or directory\n")


def test_ctrl_c_leaves_whole_images(model, tmp_path):
    images = tmp_path / "images"
    process = start(tmp_path, ROOT / "generate.py", "--pretrained_model", model, "--seeds", "0-9999", "--out", images)
    wait_for(process, lambda: images.exists() and len(list(images.iterdir())) > 20)
    process.send_signal(2)
    _, err = process.communicate()
    assert process.returncode == 130 and err.splitlines()[-1] == "generate.py: stopped by SIGINT"
    for path in images.iterdir():
        assert pixels(path).shape[1:] == (64, 64)
    shutil.rmtree(images)

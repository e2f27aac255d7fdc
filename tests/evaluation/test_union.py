"""`test.py --pretrained_model A,B,…`: samples of several generators, classes matched by name."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import checkpoint
import sampler
import tester
from command.line import CommandLine
from evaluation import measurement, union
from evaluation.sources import GeneratorSamples
from networks import models_of
from published_data import all_data_sets
from utils import UserError

LETTERS = {"a": "0,5", "b": "5,10", "c": "3,7"}  # file: its classes of digits


@pytest.fixture
def save(make_parameters, tmp_path, monkeypatch):
    """Save an untrained generator of some digits as NAME.safetensors; returns its parameters."""
    monkeypatch.chdir(tmp_path)

    def save(name, classes, names=None, **changes):
        first, stop = map(int, classes.split(","))
        seed = ord(name) if len(name) == 1 else 0
        options = {"dataset": "digits", "classes": classes, "num_classes": stop - first, "manual_seed": seed}
        p = make_parameters(**options | changes)
        state = {key: tensor.numpy() for key, tensor in models_of(p).build_generator(p).state_dict().items()}
        names = all_data_sets()["digits"].class_names[first:stop] if names is None else names
        checkpoint.save(f"{name}.safetensors", 1, dataclasses.asdict(p), {"G": state}, class_names=names)
        return p

    return save


def measured(*options):
    """Do test.py's work; returns the `Tester` and the content of its newest report."""
    command = CommandLine([*map(str, options), "--device", "cpu"], program="test")
    loaded = checkpoint.load_file_or_run(*command.checkpoint_to_load(), wanted=("G", "G_ema"))
    made = tester.Tester(command.parameters(loaded.parameters), loaded)
    made.test()
    first = made.source.default_folder
    newest = max(first.parent.glob(f"{first.name}*/report.json"), key=lambda path: path.stat().st_mtime_ns)
    return made, json.loads(newest.read_text())


def samples_of(file, indices, digits, seed):
    """Samples `indices` of the generator in `file`, of these digits, drawn without `evaluation.union`."""
    loaded = checkpoint.load(file)
    p = CommandLine(["--pretrained_model", file, "--manual_seed", str(seed)], "test").parameters(loaded.parameters)
    source = GeneratorSamples(p, loaded)
    labels = [loaded.class_names.index(str(digit)) for digit in digits]
    return sampler.generate(source.snapshot, p, indices, labels)


def test_each_class_is_drawn_by_the_generator_that_has_it(save, tmp_path, capsys):
    """A sample has the bits of the same sample of this generator alone. The classes of c are drawn in turn."""
    for name, classes in LETTERS.items():
        save(name, classes)
    files = [f"{name}.safetensors" for name in LETTERS]
    options = ["--num_samples", 43, "--samples_npz", "all.npz", "--manual_seed", 5, "--metrics", "none"]
    _, report = measured("--pretrained_model", ",".join(files), *options)
    assert "recipe acgan-digits (as the checkpoint says)\n3 models, such as acgan-digits" in capsys.readouterr().out
    with np.load("all.npz") as arrays:
        images, labels = arrays["arr_0"], arrays["arr_1"]
    assert labels.tolist() == [index % 10 for index in range(43)]
    owner = {digit: "a" if digit < 5 else "b" for digit in range(10)}
    # Digits 3 to 6 belong to two models: they alternate from one sample of the class to the next.
    drawn = ["c" if 3 <= label < 7 and index // 10 % 2 else owner[label] for index, label in enumerate(labels.tolist())]
    for name in LETTERS:
        indices = [index for index, own in enumerate(drawn) if own == name]
        expected = samples_of(f"{name}.safetensors", indices, labels[indices], 5)
        assert (images[indices] == expected.transpose(0, 2, 3, 1)).all()
    assert report["settings"]["models"] == 3 and report["settings"]["num_classes"] == 10
    assert report["settings"]["classes drawn"] == 10
    with Image.open(tmp_path / "sagan_models" / "test-3-models" / "class_grid.png") as grid:
        assert grid.size[1] > 10 * 16


def test_many_models_draw_the_samples_of_several_chunks_together(save, monkeypatch):
    """The samples have the same bits, and G is called less often."""
    monkeypatch.setattr(measurement, "CHUNK", 16)
    calls, generate = [], sampler.generate
    monkeypatch.setattr(sampler, "generate", lambda *arguments: calls.append(len(arguments[2])) or generate(*arguments))
    for number in range(4):
        save(f"model-{number}", f"{number},{number + 1}")
    files = ",".join(f"model-{number}.safetensors" for number in range(4))
    options = ["--pretrained_model", files, "--num_samples", 160, "--metrics", "none", "--samples_npz"]
    measured(*options, "eight.npz")
    assert calls[:8] == [32] * 4 + [8] * 4  # 128 samples, then 32
    monkeypatch.setattr(union.Union, "chunks_at_once", 1)
    measured(*options, "one.npz")
    assert all((np.load("eight.npz")[name] == np.load("one.npz")[name]).all() for name in ("arr_0", "arr_1"))


def test_the_samples_do_not_depend_on_the_order_of_the_models(save):
    """If each class belongs to one of them. Classes have the order of the data set."""
    for name in "ab":
        save(name, LETTERS[name])
    options = ["--metrics", "none", "--manual_seed", 5]
    for order in ("ab", "ba"):
        files = ",".join(f"{name}.safetensors" for name in order)
        measured("--pretrained_model", files, "--num_samples", 20, "--samples_npz", f"{order}.npz", *options)
    assert all((np.load("ab.npz")[name] == np.load("ba.npz")[name]).all() for name in ("arr_0", "arr_1"))


def test_the_union_is_compared_with_the_real_images_of_its_classes(save):
    """Figures of classes need the same classes on both sides."""
    for name in "ab":
        save(name, LETTERS[name])
    options = ["--num_samples", 20, "--metrics", "distance"]
    _, report = measured("--pretrained_model", "a.safetensors,b.safetensors", *options)
    assert report["figures"]["class_distance_ratio"] > 0 and report["settings"]["num_classes"] == 10
    save("c", "3,7")
    fewer = ["--pretrained_model", "a.safetensors,c.safetensors", *options]
    with pytest.raises(UserError, match="the generator has 7 classes, --dataset digits has 10"):
        measured(*fewer)
    assert measured(*fewer, "--classes", "0,7")[1]["settings"]["num_classes"] == 7
    lacking = "the generator has 7 classes, --dataset digits has 5: it lacks 5 and 1 more; choose all classes of the "
    with pytest.raises(UserError, match=lacking + "generator by --classes"):
        measured(*fewer, "--classes", "0,5")


def test_models_that_do_not_fit_together_are_refused(save):
    save("a", "0,5")
    save("unnamed", "5,10", names=())
    save("small", "5,10", model="acgan-mlp", imsize=12)
    for other, found in (
        ("unnamed", "unnamed.safetensors holds no class names: measure it alone"),
        ("small", "a.safetensors draws images of digits with 16 pixels, and small.safetensors of digits with 12"),
        ("gone", "--pretrained_model gone.safetensors does not exist"),
        ("", "--pretrained_model"),
    ):
        with pytest.raises(UserError, match=found):
            measured("--pretrained_model", f"a.safetensors,{other}.safetensors" if other else "a.safetensors,")


def test_a_file_with_a_comma_in_its_name_is_one_model(save, tmp_path):
    save("a", "0,5")
    (tmp_path / "a.safetensors").rename(tmp_path / "a,b.safetensors")
    made, _ = measured("--pretrained_model", "a,b.safetensors", "--num_samples", 3, "--metrics", "none")
    assert isinstance(made.source, GeneratorSamples)

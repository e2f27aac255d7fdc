"""The records of the published data sets: a new data set is one new file, as docs/contributing.md shows."""

import gzip
import re
import struct

import numpy as np
import pytest
from commands import ROOT, copy_program, run

from options import are_unique
from parameters import DATA_SETS, RECIPES, RESIZE_FILTER

CLASSES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
# Prints the images of a command, and its meaning.
LOOK = """
import sys
from command.line import CommandLine
from dataset import load_dataset
p = CommandLine(sys.argv[1:], "train").parameters()
for split in ("train", "test"):
    images = load_dataset(p, split)
    print(split, len(images), images.image_shape, images.labels.tolist()[:3])
print(p.recipe, p.imsize, p.filter, *p.chosen_metrics)
print(*images.class_names)
"""


def write_idx(path, array):
    header = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def program(tmp_path):
    """A copy of the program with the example of docs/contributing.md, and four small files for it in files/."""
    copy_program(tmp_path)
    text = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n([^`]*DATA_SETS = [^`]*)```", text)
    (tmp_path / "published_data" / "kmnist.py").write_text(example, encoding="utf-8")
    (tmp_path / "files").mkdir()
    for prefix, count in (("train", 40), ("t10k", 20)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
        write_idx(tmp_path / "files" / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / "files" / f"{prefix}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8) % 10)
    return tmp_path


def test_one_new_file_adds_a_data_set(program):
    command = ["-c", LOOK, "--dataset", "kmnist"]
    code, out, err = run(program, *command, "--data_path", "files")
    assert code == 0, err
    _, *found = out.splitlines()  # the first line names the recipe
    assert found == [
        "train 40 (1, 32, 32) [0, 1, 2]",
        "test 20 (1, 32, 32) [0, 1, 2]",
        "acgan-mnist 32 bilinear fid floor is accuracy distance",
        " ".join(CLASSES),
    ]
    code, _, err = run(program, *command)
    assert code and "--dataset kmnist needs --data_path" in err
    code, _, err = run(program, program / "train.py", "--dataset", "kmnst")
    assert code == 2 and "'kmnst'" in err and "cifar10, kmnist, folder, imagenet, fake" in err
    code, out, _ = run(program, program / "train.py", "--help")
    assert code == 0 and "cifar10, kmnist, folder" in " ".join(out.split())


@pytest.mark.slow
def test_the_new_data_set_is_trained_measured_and_described(program):
    options = ["--device", "cpu", "--data_path", "files"]
    training = ["--dataset", "kmnist", "--imsize", "8", "--batch_size", "4", "--total_step", "1", "--name", "a"]
    code, _, err = run(program, program / "train.py", *training, *options)
    assert code == 0, err
    model = ["--pretrained_model", "sagan_models/a"]
    code, out, err = run(program, program / "test.py", *model, *options, "--num_samples", "20", "--metrics", "accuracy")
    assert code == 0 and "read as the class asked for: " in out, out + err
    code, _, err = run(program, program / "test.py", *model, *options, "--metrics", "fid_64")
    assert code == 2 and "which does not measure --dataset kmnist" in err
    code, _, err = run(program, program / "export.py", *model, "--out", "card")
    assert code == 0, err
    card = (program / "card" / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-sa-4.0" in card and "Kuzushiji-MNIST (" in card and "10 classes (o, ki, su" in card


@pytest.mark.parametrize("name", DATA_SETS)
def test_the_records_fit_the_program(name):
    data = DATA_SETS[name]
    assert (RECIPES / f"{data.recipe}.yaml").is_file()
    assert RESIZE_FILTER.accepts(data.filter)
    assert len(data.class_names) > 1 and are_unique(data.class_names)
    assert data.name == name and data.source.endswith(".")

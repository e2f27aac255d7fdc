"""Tester: load a generator, draw samples, write them, measure them."""

import contextlib
import sys
import zipfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

import checkpoint
import sampler
from dataset import load_dataset
from metrics.classifier import train_classifier
from metrics.diversity import class_distance
from utils import UserError, atomic_path, save_image

CLASSIFIED = ("digits", "mnist", "fashion-mnist")  # data sets small enough to train a classifier on
PER_CLASS = 1000  # images of each class that the diversity compares


class Tester:
    """Draws from the generator of a `checkpoint.Checkpoint`, read from the file `source`, and measures what it drew.

    Sample i is of the class that image i of the test data has, counted round, where `test_data_path` names some; else
    the classes take turns.
    """

    def __init__(self, parameters, loaded, source):
        p = self.parameters = parameters
        part = "G_ema" if "G_ema" in loaded.parts else "G"
        if part not in loaded.parts:
            raise UserError(f"{source} holds no generator")
        self.G = checkpoint.models_of(p).make_generator(p)
        checkpoint.load_network(self.G, loaded.parts[part], source)
        self.G.eval()
        self.folder = Path(p.test_path) if p.test_path else checkpoint.run_of(source) / f"test-{Path(source).stem}"
        self.labels = load_dataset(p, "test").labels if p.test_data_path else np.arange(p.num_classes)
        if p.samples_dir and Path(p.samples_dir).is_dir() and any(Path(p.samples_dir).iterdir()):
            raise UserError(f"--samples_dir {p.samples_dir} is not empty: give another folder")
        if p.samples_npz and Path(p.samples_npz).exists():
            raise UserError(f"--samples_npz {p.samples_npz} exists already: give another file")
        steps = f" after {loaded.step} steps" if loaded.step else ""  # which a bare state dictionary does not tell
        average = ", moving average of its weights" if part == "G_ema" else ""
        print(f"{source}: {p.model}{steps}{average}")

    def test(self):
        """Draw `num_samples` samples, write what was asked for, print the figures and the class grid's path."""
        p = self.parameters
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            readers = []
            if p.samples_dir or p.check_path:  # where samples are all that its published command makes
                readers.append(PNGWriter(p.samples_dir or self.folder / "samples", p.num_classes))
            if p.samples_npz:
                readers.append(stack.enter_context(npz_writer(p)))
            if p.dataset in CLASSIFIED:
                readers += self._class_reader()
            if not readers:
                print("nothing here measures these samples; --samples_dir or --samples_npz keeps them")
            count = p.num_samples if readers else 0
            for start in tqdm(range(0, count, p.batch_size_test), desc="samples", unit="batch", disable=not readers):
                indices = np.arange(start, min(start + p.batch_size_test, count))
                labels = self.labels[indices % len(self.labels)]
                images = sampler.generate(self.G, p, indices, labels)
                for reader in readers:
                    reader.read(indices, labels, images)
        for reader in readers:
            for line in reader.report():
                print(line)
        grid = self.folder / "class_grid.png"
        save_image(grid, sampler.class_grid(self.G, p))
        print(f"class grid: {grid}")

    def _class_reader(self):
        try:
            return [ClassReader(self.parameters)]
        except UserError as error:
            print(f"no class accuracy: {error}", file=sys.stderr)
            return []


class ClassReader:
    """Counts the samples that an independent classifier reads as the class asked for, and keeps some for diversity."""

    def __init__(self, parameters):
        self.real = load_dataset(parameters, "train")
        self.held_out = load_dataset(parameters, "test")
        self.classifier = train_classifier(self.real, parameters.manual_seed)
        self.right = self.count = 0
        self.kept, self.kept_labels = [], []

    def read(self, indices, labels, images):
        self.right += int((self.classifier.read(images) == labels).sum())
        self.count += len(images)
        if indices[0] < PER_CLASS * self.real.num_classes:
            self.kept.append(images)
            self.kept_labels.append(labels)

    def report(self):
        held_out = self.held_out.stacked()
        right = int((self.classifier.read(held_out) == self.held_out.labels).sum())
        generated = class_distance(np.concatenate(self.kept), np.concatenate(self.kept_labels), PER_CLASS)
        real = class_distance(self.real.stacked(), self.real.labels, PER_CLASS)
        ratio = generated["class_distance"] / real["class_distance"]
        yield f"read as the class asked for: {self.right / self.count:.2%} of {self.count} generated images"
        yield f"read as their own class:     {right / len(held_out):.2%} of {len(held_out)} held-out real images"
        if np.isfinite(ratio):  # no class has two samples when few are drawn
            yield f"diversity within a class:    {ratio:.3f} (mean distance of two generated images over two real)"


class PNGWriter:
    """Writes each sample as FOLDER/CLASS/INDEX.png, as image folders are laid out."""

    def __init__(self, folder, num_classes):
        self.folder = Path(folder)
        for label in range(num_classes):
            (self.folder / f"{label:04d}").mkdir(parents=True, exist_ok=True)

    def read(self, indices, labels, images):
        for index, label, image in zip(indices, labels, images, strict=True):
            save_image(self.folder / f"{label:04d}" / f"{index:06d}.png", image.transpose(1, 2, 0))

    def report(self):
        yield f"samples: {self.folder}"


class NPZWriter:
    """Writes samples to one .npz as they come: arr_0 uint8 [N, H, W, C] and arr_1 int64 [N], as guided-diffusion."""

    def __init__(self, member, path, shape):
        self.member, self.path = member, path
        np.lib.format.write_array_header_1_0(self.member, {"descr": "|u1", "fortran_order": False, "shape": shape})
        self.labels = []

    def read(self, indices, labels, images):
        self.member.write(np.ascontiguousarray(images.transpose(0, 2, 3, 1)).tobytes())
        self.labels.append(labels)

    def report(self):
        yield f"samples: {self.path}"


@contextlib.contextmanager
def npz_writer(parameters):
    """An NPZWriter of `parameters.samples_npz`; the file appears when the block has ended well."""
    p = parameters
    with atomic_path(p.samples_npz) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as member:
            writer = NPZWriter(member, p.samples_npz, (p.num_samples, p.imsize, p.imsize, p.channels))
            yield writer
        with archive.open("arr_1.npy", "w") as member:
            np.lib.format.write_array(member, np.concatenate(writer.labels))

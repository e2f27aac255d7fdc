"""Options that train.py and test.py refuse before they start. Each message names the option and a value that works."""

import os
from pathlib import Path

from metrics.record import LAST_LAYER, REAL, SAMPLES, TRAINING
from parameters import CLASSIFIED, METRICS, OPTIONS, changed_options
from utils import UserError

OPTIONS_OF_DRAWING = {
    "num_samples", "labels", "truncation", "standing_batches", "use_ema", "samples_dir", "samples_npz",
}  # fmt: skip
# Options that a resumed run may change. The others decide what is trained, on which images, in which order. How many
# images are in a step depends on the number of processes as well, so `training/run_start.py` compares that.
CHANGEABLE = frozenset({
    "total_step", "niter", "d_lr", "g_lr", "batch_size", "global_batch_size", "batch_size_in_gpu", "log_step",
    "sample_step", "model_save_step", "save_freq", "keep_checkpoints", "max_frames_per_gif", "data_path",
    "test_data_path", "num_workers", "device", "parallel", "amp",
})  # fmt: skip


def check_changes(folder, before, after):
    """Refuse an option that changes what the run in `folder` trains; `before` and `after` are values by field name."""
    for name, (old, new) in changed_options(before, after).items():
        if name not in CHANGEABLE and OPTIONS[name].metadata["group"] not in ("Testing", "Measures"):
            raise UserError(f"--{name} {new} differs from that of {folder}, {old}: leave it out, or start another run")


def check_training(p):
    """Refuse the `Parameters` of train.py where a training cannot start with them."""
    if p.dataset in ("folder", "imagenet") and p.data_path is None:
        raise UserError(
            f"--dataset {p.dataset} needs --data_path: a folder that holds one folder of images for each class"
        )
    if p.dataset in ("digits", "fake") and p.data_path is not None:
        raise UserError(f"--data_path {p.data_path} would not be read: --dataset {p.dataset} brings its own images")
    if p.exif and p.dataset not in ("folder", "imagenet"):
        raise UserError(f"--exif has no effect: the images of --dataset {p.dataset} have no EXIF; leave it out")
    _must_exist("data_path", p.data_path)
    if not p.resume:
        _must_exist("pretrained_model", p.pretrained_model)
    if p.eval_step:
        _check_measures(p)
        if not p.chosen_metrics:
            raise UserError("--eval_step has nothing to measure: give --test_data_path, --reference or --metrics")
        if SAMPLES not in METRICS[first := p.chosen_metrics[0]].sets:
            raise UserError(
                f"--metrics {p.metrics}: with --eval_step the first metric chooses the best weights, and {first} does "
                "not depend on them; put another first"
            )


def check_test(p, given):
    """Refuse the `Parameters` of test.py where they cannot be tested; `given` holds the options of the command."""
    if sum(map(bool, (p.pretrained_model, p.check_path, p.samples))) != 1:
        raise UserError(
            "give one thing to test: --pretrained_model PATH (a checkpoint or run), or --check_path DIR, or "
            "--samples PATH to measure existing images"
        )
    for name in ("pretrained_model", "samples", "test_data_path"):
        _must_exist(name, getattr(p, name))
    if p.check_path:
        generator_file(p.check_path, p.which_epoch)
    if p.samples and (without_effect := OPTIONS_OF_DRAWING & given.keys()):
        raise UserError(
            f"--{min(without_effect)} has no effect: --samples measures existing images and draws none; leave it out"
        )
    _check_measures(p)
    for name in ("samples_dir", "save_path" if p.samples and not p.test_path else "test_path"):
        check_place(p, name, ("test_data_path",))


def generator_file(check_path, epoch):
    """The file of the generator in a folder of the Paddle ACGAN replication. Raises UserError where there is none."""
    _must_exist("check_path", check_path)
    path = Path(check_path, f"G_{epoch}.pdparams")
    if not path.is_file():
        raise UserError(f"--check_path {check_path} has no {path.name}; give another --which_epoch")
    return path


def _check_measures(p):
    """Refuse options that say what to measure, and against what, where they do not go together."""
    for name in ("test_data_path", "reference", "inception_weights"):
        _must_exist(name, getattr(p, name))
    chosen = [METRICS[name] for name in sorted(p.chosen_metrics)]
    if p.reference and p.test_data_path:
        raise UserError("--reference and --test_data_path are both real images to measure against; give one of them")
    if p.dataset in ("digits", "fake") and p.test_data_path:
        raise UserError(
            f"--test_data_path {p.test_data_path} would not be read: --dataset {p.dataset} brings its own images"
        )
    if p.dataset in CLASSIFIED:
        for name in ("reference", "inception_weights", "half_precision"):
            if getattr(p, name):
                raise UserError(
                    f"--{name} is for Inception, which does not measure --dataset {p.dataset}; leave it out"
                )
    if p.reference and (images := [metric.name for metric in chosen if not metric.takes_statistics]):
        raise UserError(
            f"--metrics {images[0]} needs real images, not statistics: give --test_data_path for --reference"
        )
    of_inception = [metric.name for metric in chosen if metric.layer not in ("", LAST_LAYER)]
    if p.dataset in CLASSIFIED and of_inception:
        raise UserError(
            f"--metrics {of_inception[0]} needs Inception, which does not measure --dataset {p.dataset}; give fid"
        )
    if p.dataset in ("folder", "imagenet"):
        metric_of_set = {name: metric.name for metric in chosen for name in metric.sets}
        if REAL in metric_of_set and not (p.test_data_path or p.reference):
            raise UserError(
                f"--metrics {p.metrics} needs real images: give --test_data_path DIR, or --reference FILE for FID"
            )
        if TRAINING in metric_of_set and not p.data_path:
            raise UserError(
                f"--metrics {metric_of_set[TRAINING]} compares --test_data_path with the training images: give "
                "--data_path DIR"
            )


def check_place(p, written, read):
    """Refuse the folder of the option `written` inside a data folder, of the options `read`: it would be a class."""
    if p.dataset not in ("folder", "imagenet") or getattr(p, written) is None:
        return
    for name in read:
        if getattr(p, name) is None:
            continue
        for full in (os.path.abspath, os.path.realpath):  # both, because a link in the data folder is a class too
            place, data = Path(full(getattr(p, written))), Path(full(getattr(p, name)))
            if place.is_relative_to(data):
                outside = data.parent / (place.relative_to(data).name or "sagan_models")
                raise UserError(
                    f"--{written} {getattr(p, written)} lies inside --{name} {getattr(p, name)}, where each folder "
                    f"is a class: give a folder outside of it, such as {outside}"
                )


def _must_exist(name, path):
    if path is not None and not os.path.exists(path):
        raise UserError(f"--{name} {path} does not exist")

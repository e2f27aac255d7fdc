"""Refuse wrong options of train.py and test.py before they start. Each message names the option and a remedy."""

import os
from pathlib import Path

from command.options import ENDINGS
from metrics.record import LAST_LAYER, REAL, SAMPLES, TEST, TRAINING
from options import numbers
from parameters import METRICS, OPTIONS, changed_options
from utils import UserError

OPTIONS_OF_DRAWING = {
    "num_samples", "labels", "truncation", "standing_batches", "use_ema", "samples_dir", "samples_npz",
}  # fmt: skip
# Options that a resumed run may change. All others decide the networks, the losses, the images or their order. The
# number of images in a step also depends on the number of processes, so `training/run_start.py` checks it.
CHANGEABLE = frozenset({
    "total_step", "niter", "d_lr", "g_lr", "batch_size", "global_batch_size", "batch_size_in_gpu", "log_step",
    "tipc_log", "sample_step", "model_save_step", "save_freq", "keep_checkpoints", "max_frames_per_gif", "data_path",
    "test_data_path", "num_workers", "data_in_memory", "device", "threads", "parallel",
    "amp", "recompute", "dry_run",
})  # fmt: skip


def check_changes(folder, before, after):
    """Refuse an option that changes the training of the run in `folder`. `before`, `after`: {field name: value}."""
    for name, (old, new) in changed_options(before, after).items():
        if name not in CHANGEABLE and OPTIONS[name].metadata["group"] not in ("Testing", "Measures"):
            raise UserError(
                f"--{name} {new} differs from {old}, its value in {folder}: leave it out, or start another run"
            )


def check_training(p):
    """Refuse the `Parameters` of train.py if training cannot start with them."""
    if p.reads_folders and p.data_path is None:
        raise UserError(f"--dataset {p.dataset} needs --data_path: a folder with one folder of images for each class")
    if p.is_built_in and p.data_path is not None:
        raise UserError(
            f"--data_path {p.data_path} has no effect: --dataset {p.dataset} has its own images; leave it out"
        )
    if p.exif and not p.reads_folders:
        raise UserError(f"--exif has no effect: the images of --dataset {p.dataset} have no EXIF; leave it out")
    if p.fast_decode and not p.reads_folders:
        raise UserError(f"--fast_decode has no effect: the images of --dataset {p.dataset} are no JPEGs; leave it out")
    for name in ("fast_decode", "resize_filter"):
        if p.dont_resize and getattr(p, name):
            raise UserError(f"--{name} has no effect with --dont_resize: leave one of them out")
    if p.recompute and (not p.is_sagan or p.adv_loss == "wgan_gp"):
        cause = "--adv_loss wgan_gp" if p.is_sagan else f"--model {p.model}"
        raise UserError(f"--recompute does not work with {cause}: leave it out")
    _must_exist("data_path", p.data_path)
    if not p.resume:
        _must_exist("pretrained_model", p.pretrained_model)
    if p.eval_step:
        _check_measures(p)
        if not p.chosen_metrics:
            raise UserError("--eval_step has nothing to measure: give --test_data_path, --reference or --metrics")
        if SAMPLES not in METRICS[first := p.chosen_metrics[0]].sets:
            raise UserError(
                f"--metrics {p.metrics}: with --eval_step the first metric decides which weights are the best, and "
                f"{first} does not depend on the weights; put another metric first"
            )


def check_test(p, given):
    """Refuse the `Parameters` of test.py if it cannot run with them. `given`: the options of the command line."""
    if sum(map(bool, (p.pretrained_model, p.check_path, p.samples))) != 1:
        raise UserError(
            "give one thing to test: --pretrained_model PATH (a checkpoint or run), or --check_path DIR, or "
            "--samples PATH to measure existing images"
        )
    for path in p.pretrained_models:
        _must_exist("pretrained_model", path)
    for name in ("samples", "test_data_path"):
        _must_exist(name, getattr(p, name))
    if p.check_path:
        generator_file(p.check_path, p.which_epoch)
    if p.samples and (without_effect := OPTIONS_OF_DRAWING & given.keys()):
        raise UserError(
            f"--{min(without_effect)} has no effect: --samples measures existing images and draws none; leave it out"
        )
    _check_measures(p)
    # The data_path of a run may mean another folder here, so it counts only if this test reads it.
    reads_training = "data_path" in given or p.real_split != "test"
    read = ("data_path", "test_data_path") if reads_training else ("test_data_path",)
    in_save_path = (p.samples or len(p.pretrained_models) > 1) and not p.test_path
    for name in ("samples_dir", "save_path" if in_save_path else "test_path"):
        check_place(p, name, read)


def check_packing(p, packing):
    """Refuse the `Parameters` and the `Packing` of pack.py if it cannot run with them."""
    if packing.out is None:
        raise UserError("give the file to write by --out, a name that ends in .npz or .zip")
    if p.is_built_in:
        raise UserError(f"--dataset {p.dataset} has its own images and needs no packed file: give another --dataset")
    if p.data_path and p.test_data_path:
        raise UserError("--data_path and --test_data_path both name images to pack: give one of them")
    if p.reads_folders:
        if not (p.data_path or p.test_data_path):
            raise UserError("give the images to pack by --data_path")
    else:
        for name, given in (("exif", p.exif), ("label_list", packing.label_list)):
            if given:
                raise UserError(f"--{name} has no effect on --dataset {p.dataset}: leave it out")
    for name in ("data_path", "test_data_path"):
        _must_exist(name, getattr(p, name))
    _must_exist("label_list", packing.label_list)
    _check_new_file(packing.out)


def check_drawing(d, given):
    """Refuse the options `d`, a `Drawing`, that contradict each other. `given`: the names of those given."""
    if d.grid and d.interpolate:
        raise UserError("--grid writes a picture and --interpolate a film: give one of them")
    if "frames" in given and not d.interpolate:
        raise UserError("--frames has no effect without --interpolate: leave it out")
    if d.interpolate not in (None, "classes"):
        if "seeds" in given:
            raise UserError("--interpolate and --seeds both choose the seeds: give one of them")
        if len(stops := numbers(d.interpolate)) < 2:
            raise UserError(f"--interpolate {d.interpolate} names one seed: give two or more, such as 0,7,12")
        if len(stops) > d.frames:
            raise UserError(f"--frames {d.frames} is less than the {len(stops)} seeds of --interpolate: give more")
    if d.out is not None:
        _check_out(d)


def check_page(page, given):
    """Refuse the options `page`, a `Page`, and `given`, the other options of gallery.py."""
    for name in ("data_path", "test_data_path", "inception_weights"):
        _must_exist(name, given.get(name))
    if not given.get("pretrained_model"):
        raise UserError(
            "give the run or the checkpoint to show, such as: python gallery.py sagan_models/acgan-digits-1"
        )
    if page.out is not None:
        _check_new_file(page.out)


def _check_new_file(path):
    """Refuse the file of --out if it exists, or if its folder does not."""
    if os.path.exists(path):
        raise UserError(f"--out {path} exists already: give another name")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise UserError(f"--out {path}: there is no folder {folder}; make it, or give another name")


def _check_out(d):
    """Refuse a path that does not fit the kind of output, or that exists already."""
    endings = ENDINGS.get(d.kind, ())
    if endings and not d.out.lower().endswith(endings):
        option = "--interpolate" if d.interpolate else "--grid"
        raise UserError(f"--out {d.out}: {option} writes a file that ends in {' or '.join(endings)}; give such a name")
    if not endings and d.out.lower().endswith(sum(ENDINGS.values(), ())):
        raise UserError(
            f"--out {d.out} is one file, but each image is a file: give a folder, or add --grid or --interpolate"
        )
    if endings:
        _check_new_file(d.out)
    else:
        check_new_folder(d.out)


def check_new_folder(out):
    """Refuse the folder of --out if it is a file or holds files."""
    if os.path.isdir(out):
        if os.listdir(out):
            raise UserError(f"--out {out} is not empty: give another folder")
    elif os.path.lexists(out):
        raise UserError(f"--out {out} exists already and is no folder: give another name")


def generator_file(check_path, epoch):
    """The generator's file in a folder of the Paddle ACGAN replication. Raises UserError if it does not exist."""
    _must_exist("check_path", check_path)
    path = Path(check_path, f"G_{epoch}.pdparams")
    if not path.is_file():
        raise UserError(f"--check_path {check_path} has no {path.name}; give another --which_epoch")
    return path


def _check_measures(p):
    """Refuse metrics, and real images to compare with, that contradict each other or the data set."""
    for name in ("test_data_path", "reference", "inception_weights"):
        _must_exist(name, getattr(p, name))
    chosen = [METRICS[name] for name in sorted(p.chosen_metrics)]
    if p.reference and p.test_data_path:
        raise UserError("--reference and --test_data_path both set the real images to compare with; give one of them")
    if p.is_built_in and p.test_data_path:
        raise UserError(
            f"--test_data_path {p.test_data_path} has no effect: --dataset {p.dataset} has its own images; leave it out"
        )
    if p.by_classifier:
        for name in ("reference", "inception_weights", "half_precision"):
            if getattr(p, name):
                raise UserError(
                    f"--{name} is for Inception, which does not measure --dataset {p.dataset}; leave it out"
                )
    if p.reference and (need_images := [metric.name for metric in chosen if not metric.takes_statistics]):
        raise UserError(
            f"--metrics {need_images[0]} needs real images, not statistics: give --test_data_path, not --reference"
        )
    need_inception = [metric.name for metric in chosen if metric.layer not in ("", LAST_LAYER)]
    if p.by_classifier and need_inception:
        raise UserError(
            f"--metrics {need_inception[0]} needs Inception, which does not measure --dataset {p.dataset}; give fid"
        )
    if p.reads_folders:
        metric_of_set = {name: metric.name for metric in chosen for name in metric.sets}
        compares = REAL in metric_of_set and not p.reference
        if compares and p.real_split == "both" and p.data_path and not p.test_data_path:
            raise UserError(
                "--real_split both also needs test images: give --test_data_path DIR, or --real_split train"
            )
        if compares and p.real_split != "train" and not p.test_data_path:
            raise UserError(
                f"--metrics {p.metrics} needs real images: give --test_data_path DIR, or --reference FILE for FID"
            )
        if compares and p.real_split != "test" and not p.data_path:
            raise UserError(
                f"--real_split {p.real_split} compares with training images: give --data_path DIR, or --real_split test"
            )
        if TEST in metric_of_set and not p.test_data_path:
            raise UserError(f"--metrics {metric_of_set[TEST]} needs test images: give --test_data_path DIR")
        if TRAINING in metric_of_set and not p.data_path:
            raise UserError(
                f"--metrics {metric_of_set[TRAINING]} compares --test_data_path with the training images: give "
                "--data_path DIR"
            )


def check_place(p, written, read):
    """Refuse a folder to write to, of the option `written`, inside a data folder, of the options `read`.

    There it would become a class.
    """
    if not p.reads_folders or getattr(p, written) is None:
        return
    for name in read:
        if getattr(p, name) is None:
            continue
        for full in (os.path.abspath, os.path.realpath):  # both, because a link inside the data folder is also a class
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

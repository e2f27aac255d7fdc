"""Packs a data set: processes read its images, and one file gets them in their order."""

import dataclasses
import hashlib
import json
import time
from contextlib import contextmanager, nullcontext

import numpy as np

from formats.image_files import fit_in_words
from formats.packed_data import About, pixel_options
from loading.image_sets import FolderSet, Unreadable
from packing.files import NPZ, ZIP, Growing
from packing.inputs import open_source
from packing.readers import Died, reading
from utils import UserError, plural, progress, shell_word

BLOCK = 16  # images that a process reads at a time
NOTED = 1000  # images between two entries of the journal
NAMED = 3  # the smallest and largest classes
LISTED = 20  # the most files that were left out in a report


def pack(parameters, packing):
    """Write the file of pack.py. Raises UserError for wrong data; then the same command goes on after a remedy."""
    p = parameters
    source, split = open_source(p, packing.label_list)
    content = (NPZ if packing.out.lower().endswith(".npz") else ZIP)(len(source), source.image_shape)
    path, names = p.test_data_path or p.data_path or "", list(source.class_names)
    about = About(p.dataset, split, path, p.classes, names, source.by_class, pixel_options(p), source.fingerprint())
    about = dataclasses.replace(about, label_list=packing.label_list)
    key = hashlib.blake2b(json.dumps([about.pixels, about.fingerprint, type(content).__name__]).encode(), digest_size=6)
    growing = Growing(packing.out, key.hexdigest(), content)
    try:
        _write(source, content, growing, p.num_workers)
        labels = shown_labels(source)
        left_out = [[place, int(source.labels[place]), *found] for place, found in sorted(source.left_out.items())]
        with growing.errors_named():
            growing.finish(labels, dataclasses.replace(about, left_out=left_out))
    finally:
        growing.close()
    return report(packing.out, source, labels)


def _write(source, content, growing, workers):
    """Append the images of `source` to `growing`, from its place on."""
    begun, first = time.monotonic(), growing.done
    if first:
        print(f"goes on after {plural(first, 'image')}", flush=True)
    source.left_out.update(growing.left_out)
    with (
        _reading(source, content.encode, first, workers) as images,  # before the bar, because the bar has a thread
        progress(title="packing", unit="img", total=len(source), done=first) as bar,
    ):
        for encoded in images:
            if encoded is None:  # reading it again, here, names it and finds the image that replaces it
                encoded = content.encode(source[growing.done][0])
            with growing.errors_named():
                growing.append(encoded)
                bar.update(1)
                if growing.done % NOTED == 0:
                    growing.note(source.left_out)
    seconds = time.monotonic() - begun
    if len(source) > first:
        print(f"read {plural(len(source) - first, 'image')}, {(len(source) - first) / seconds:.0f} a second")


@contextmanager
def _reading(source, encode, first, workers):
    """A context that gives an iterator over the bytes of each image from place `first` on; None for an unreadable one.

    `workers` processes read them, or none.
    """

    def read_block(start):
        return [_encoded(source, encode, place) for place in range(start, min(start + BLOCK, len(source)))]

    starts = range(first, len(source), BLOCK)
    check = source.reading.name_hanging if source.is_slow else bool
    with reading(read_block, starts, workers, check) if workers else nullcontext(map(read_block, starts)) as blocks:
        yield _images(source, blocks, first)


def _images(source, blocks, done):
    try:
        for block in blocks:
            done += len(block)
            yield from block
    except Died:
        last = min(done + BLOCK, len(source)) - 1
        files = f", {source.path(done)} to {source.path(last)}," if isinstance(source, FolderSet) else ""
        raise UserError(
            f"the process that read images {done} to {last}{files} has died, perhaps for lack of memory: lower "
            "--num_workers and run the same command again to go on"
        ) from None


def _encoded(source, encode, place):
    try:
        return encode(source.read(place))
    except Unreadable:
        return None


def shown_labels(source):
    """The class of the image at each place: for one that is left out, that of the image that replaces it."""
    labels = source.labels.astype(np.int64)
    for place in source.left_out:
        shown = place
        while shown in source.left_out:
            shown = (shown + 1) % len(source)
        labels[place] = source.labels[shown]
    return labels


def report(out, source, labels):
    """Lines on the finished file `out`."""
    p = source.parameters
    lines = [f"wrote {out}: {plural(len(source), 'image')} of {source.num_classes} classes, {fit_in_words(p)}"]
    counts = np.bincount(labels, minlength=source.num_classes)
    if counts.min() == counts.max():
        lines.append(f"images in a class: {counts[0]}")
    else:
        order = np.argsort(counts, kind="stable").tolist()
        named = [f"{source.class_names[c]} {counts[c]}" for c in order]
        fewest, most = ", ".join(named[:NAMED]), ", ".join(named[: -NAMED - 1 : -1])
        lines.append(f"images in a class: {counts.mean():.0f} on average; fewest: {fewest}; most: {most}")
    left_out = sorted(source.left_out.items())
    if left_out:
        lines.append(f"left out: {plural(len(left_out), 'file')}; the next image in order takes the place of each")
        lines += [f"  {file!r}: {reason}" for _, (file, reason) in left_out[:LISTED]]
        if len(left_out) > LISTED:
            command = f"unzip -p {shell_word(out)} pack.json"
            lines.append(f"  and {len(left_out) - LISTED} more, which {command} lists")
    return lines

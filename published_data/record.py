"""The record of a published data set. The options, the evaluation and the model card read everything from it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class DataSet:
    """A published data set. `name` is its name in `--dataset`. `read(path, split)` returns (images, labels).

    `path`: the value of --data_path, or of --test_data_path; None if it is left out. `split`: "train" or "test". The
    images are uint8 [N, height, width] if they are gray, else [N, height, width, 3]. The labels are int [N], and label
    i is the class `class_names[i]`. `read` raises UserError if the files are missing or wrong.
    """

    name: str
    class_names: tuple
    read: Callable
    recipe: str  # of a command with this data set and without --recipe
    licence: str  # of the images, for the model card, in the words of the model hubs
    source: str  # of the images, for the model card: a sentence that also names the licence
    order: int = 1000  # in `--help`: a lower one comes first
    gray: bool = False  # Inception does not measure gray images, so a classifier of this project measures them
    built_in: bool = False  # it comes with a package, so it needs no files and has no --data_path
    filter: str = "bilinear"  # for resizing, without --resize_filter
    sagan_size: int = 32  # pixels a side of the images of a SAGAN without --imsize

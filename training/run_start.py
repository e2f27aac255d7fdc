"""Find where a run starts: with new weights, from another run's checkpoint, or from its own newest checkpoint."""

from typing import NamedTuple

from checkpoint import Checkpoint, compare_classes, load, load_file_or_run, load_newest
from dataset import check_count
from parameters import from_values
from processes import collectives
from utils import UserError, plural


class Start(NamedTuple):
    """The start of a run. `checkpoint` is None for new weights. `is_own`: whether this run wrote the checkpoint.

    `has_other_classes`: whether the checkpoint was trained on other classes than those of the data.
    """

    checkpoint: Checkpoint | None = None
    is_own: bool = False
    has_other_classes: bool = False

    @property
    def step(self):
        """Number of steps that are already done."""
        return self.checkpoint.step if self.checkpoint else 0

    @property
    def notes(self):
        """The run's own notes in the checkpoint, by name. Empty for the checkpoint of another run."""
        return self.checkpoint.notes if self.is_own else {}


NEW_WEIGHTS = Start()


def find_start(parameters, weights, given, image_set):
    """The `Start` of a run with its checkpoints in the folder `weights`. Raises UserError if it cannot start there.

    A resumed run starts from its newest checkpoint. If it has none, it starts as a new run does: from the checkpoint of
    --pretrained_model, or with new weights. `given`: the `Start` of a new run. It has that checkpoint if the command
    line has read it already.
    """
    p = parameters
    if p.resume and (own := _load_own(weights)):
        start = Start(own, is_own=True)
    elif p.pretrained_model and not given.checkpoint:
        start = Start(load_file_or_run(p.pretrained_model))
    else:
        start = given
    if collectives.world_size() > 1:
        found = {"as checkpoint": start.checkpoint and start.checkpoint.fingerprint()}
        collectives.require_same(found, "give every process the same file")
    if start.is_own:
        _check_whole_batch(p, start.checkpoint)
    if start.checkpoint:
        start = start._replace(has_other_classes=_has_other_classes(p, start, image_set))
    check_count(p, image_set)
    check_steps_left(p, start)
    return start


def _load_own(weights):
    """The newest checkpoint in `weights`, or None. Rank 0 chooses the file, and every process reads it."""
    loaded = None

    def choose():
        nonlocal loaded
        loaded = load_newest(weights)
        return loaded and loaded.path

    path = collectives.on_rank_0(choose)
    return loaded or (path and load(path))  # on rank 0, `choose` has loaded it already


def check_steps_left(parameters, start):
    """Refuse a start with no steps left. A run's own last checkpoint is accepted, as its pictures may be missing."""
    p = parameters
    if start.checkpoint and start.step >= p.total_step + start.is_own:
        raise UserError(
            f"--total_step {p.total_step} is reached: {start.checkpoint.path} has {plural(start.step, 'step')}; "
            "give a larger number"
        )


def _has_other_classes(parameters, start, image_set):
    """Whether the checkpoint was trained on other classes. Prints the difference.

    Refuses to resume a run with other classes, because a label would mean another class. If the checkpoint has no names
    of classes, only the numbers of classes are compared.
    """
    path, class_names = start.checkpoint.path, start.checkpoint.class_names
    if not class_names:
        collectives.say(f"{path} holds no class names, so class names are not compared")
        before = from_values(start.checkpoint.parameters, path).num_classes
        if start.is_own or before == image_set.num_classes:
            return False
        _say_other_classes(path, f"{before} instead of {image_set.num_classes}")
        return True
    difference = compare_classes(class_names, image_set.class_names)
    if difference and start.is_own:
        raise UserError(
            f"{parameters.data_source} does not have the classes that {path} was trained on ({difference}): "
            "give data with those classes, or start another run"
        )
    if difference:
        _say_other_classes(path, difference)
    return bool(difference)


def _say_other_classes(path, difference):
    collectives.say(
        f"{path} was trained on other classes ({difference}): class embeddings and class heads start anew, and all "
        "other weights are kept"
    )


def _check_whole_batch(parameters, own):
    """Refuse to resume with another number of images in a step, because the order of the data would change."""
    processes = collectives.world_size()
    whole, before = parameters.batch_size * processes, own.notes.get("whole_batch")
    if before not in (None, whole):
        raise UserError(
            f"--batch_size {parameters.batch_size} makes {whole} images a step over {plural(processes, 'process')}, "
            f"and {own.path} was trained with {before}: give --global_batch_size {before}"
        )

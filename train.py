"""Train a conditional GAN. `python train.py` trains on handwritten digits; `--help` lists the options."""

import system

system.hold_signals()  # until `runtime.quit_on_signals`, because an interrupted import would print a traceback

import runtime  # noqa: E402
from command.line import CommandLine  # noqa: E402
from processes import collectives  # noqa: E402
from utils import plural, shell_word  # noqa: E402


def main():
    command = CommandLine(program="train")
    with command.naming_origins():
        return train(command)


def train(command):
    loaded = None
    if needed := command.checkpoint_to_load():
        # Imported only here, because it imports paddle, which is slow. Other mistakes are reported without it.
        from checkpoint import load_file_or_run

        loaded = load_file_or_run(*needed)
    parameters = command.parameters(loaded and loaded.parameters)
    runtime.quit_on_signals()
    runtime.start(parameters)
    advice = "give every process the same command and, with --resume, the same run"
    collectives.require_same(parameters.shared(), advice)
    from dataset import load_dataset
    from trainer import Trainer, resolve
    from training.run_start import Start

    image_set = load_dataset(parameters)
    asked_for_imagenet = parameters.dataset == "imagenet" and command.spelled & {"dataset", "dataroot"}
    if asked_for_imagenet and not image_set.is_like_imagenet:
        line = f"--data_path {parameters.data_path} does not look like ImageNet, but is used"
        collectives.say(command.explained(line))
    print(f"{len(image_set)} images of {image_set.num_classes} classes: {_listed(image_set.class_names)}", flush=True)
    if collectives.world_size() > 1:
        collectives.require_same(image_set.fingerprint(), "give every process the same images")
    trainer = Trainer(resolve(parameters, image_set))
    if parameters.dry_run:
        print_dry_run(trainer, image_set)
        return 0
    path, signal = trainer.train(image_set, Start(loaded))
    if signal:
        runtime.warn(f"stopped at step {trainer.step}; python train.py --resume {shell_word(path)} goes on")
        return 128 + signal
    test_data = " --test_data_path DIR" if parameters.reads_folders else ""
    measure = f"python test.py --pretrained_model {shell_word(path)}{test_data}"
    print(f"trained {plural(trainer.step, 'step')}; {measure} measures it")
    return 0


def print_dry_run(trainer, image_set):
    """Print the time, memory and disk space of the whole run, and write no run."""
    from training.dry_run import measure, report

    measured = measure(trainer, image_set)
    for line in report(trainer.parameters, measured, collectives.world_size()):
        collectives.say(line)
    collectives.meet()  # a launcher ends all processes when the first one ends


def _listed(names):
    """The class `names` as text: all of them, or the first two and the last if there are more than 12."""
    return ", ".join(names) if len(names) <= 12 else f"{names[0]}, {names[1]}, … {names[-1]}"


if __name__ == "__main__":
    runtime.run(main)

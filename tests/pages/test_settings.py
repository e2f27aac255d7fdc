"""The options of a run on its page: those that its user chose, without paths of the machine."""

import dataclasses

import pytest

from command.line import CommandLine
from pages.settings import run_options

IN_RUN = {"num_classes": 10}  # the trainer writes the number of the data's classes


@pytest.mark.parametrize(
    ("line", "differ"),
    [
        ("", {}),
        ("--save_path DIR --name s", {}),
        ("--total_step 50 --g_lr 0.001", {"total_step": "50", "g_lr": "0.001"}),
        ("--batch_size 8 --diffaug color --device cpu", {"batch_size": "8", "diffaug": "color", "device": "cpu"}),
        ("--niter 3", {"niter": "3"}),
        ("--global_batch_size 8", {"global_batch_size": "8"}),
        ("--recipe sagan-imagenet --data_path DIR --imsize 64", {"imsize": "64"}),
        (
            "--recipe sagan-imagenet --data_path DIR --imsize 32 --attention_size 8",
            {"imsize": "32", "attention_size": "8"},
        ),
        ("--recipe acgan-cifar10 --dataset fake --num_classes 10", {"dataset": "fake"}),
    ],
)
def test_only_options_that_the_user_chose_differ(tmp_path, line, differ):
    p = CommandLine(line.replace("DIR", str(tmp_path)).split()).parameters()
    recipe, changed, shown = run_options(dataclasses.asdict(p) | IN_RUN, "checkpoint")
    assert (recipe, changed) == (p.recipe, differ)
    assert shown["imsize"] == str(p.imsize) and shown["num_classes"] == "10" and "/" not in str(shown)


def test_a_recipe_of_the_user_s_own_is_compared_with_the_defaults():
    values = {"recipe": "mine", "g_lr": 0.5, "num_classes": 3, "pretrained_model": "/tmp/x/G.pdparams"}
    recipe, changed, shown = run_options(values, "checkpoint")
    assert (recipe, changed) == ("sagan-imagenet", {"g_lr": "0.5"}) and shown["recipe"] == "mine"

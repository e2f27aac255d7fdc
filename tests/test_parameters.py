"""Options, recipes and runs: the meaning of each command."""

import dataclasses
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import LIMIT
from parsing import parse, refusal

import parameters
from command.line import CommandLine
from parameters import Parameters, read_parameters
from trainer import resolve
from utils import RUN_FILE, run_numbers

pytestmark = pytest.mark.usefixtures("files")

ROOT = Path(parameters.__file__).parent
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
OF_FOLDERS = [recipe for recipe in RECIPES if "imagenet" in recipe or recipe == "sagan-photos"]  # need --data_path
FIELDS = {field.name: field for field in dataclasses.fields(Parameters)}


# The commands that the replications publish, and what each means


@pytest.mark.parametrize(
    ("program", "command", "recipe", "meaning"),
    [
        ("train", "", "acgan-digits", {"model": "acgan-digits", "dataset": "digits", "imsize": 16, "data_path": None}),
        ("train", "--data_path train", "sagan-imagenet", {"model": "sagan", "dataset": "imagenet", "imsize": 128}),
        ("train", "--dataroot train", "acgan-imagenet", {"model": "acgan-imagenet", "classes": "10,20", "niter": 500}),
        (
            "train",
            "--dataset=cifar10 --imageSize=32 --batchSize=100 --niter=500 --outf=DIR --dataroot=cifar --cuda",
            "acgan-cifar10",
            {"dataset": "cifar10", "data_path": "cifar", "save_path": "DIR", "batch_size": 100, "device": None},
        ),
        (
            "train",
            "--outf=/your/output --niter=500 --batchSize=100 --cuda --dataset=cifar10 --imageSize=32 --dataroot=cifar"
            " --gpu=0",
            "acgan-cifar10",
            {"device": "gpu:0", "save_path": "/your/output", "niter": 500},
        ),
        (
            "train",
            "--outf=outputs --batchSize=100 --cuda --dataset=imagenet --niter=500 --dataroot=train --gpu=1",
            "acgan-imagenet-torch",
            {"model": "acgan-imagenet-torch", "imsize": 128, "classes": "10,20", "device": "gpu:1"},
        ),
        (
            "test",
            "--test_data_path val --pretrained_model w.pdparams",
            "sagan-imagenet",
            {"model": "sagan", "num_samples": 50_000, "test_data_path": "val"},
        ),
        (
            "test",
            "--check_path checkpoints/class-10-20 --which_epoch 499",
            "acgan-imagenet",
            {"model": "acgan-imagenet", "num_classes": 10, "z_dim": 110, "which_epoch": 499},
        ),
        (
            "test",
            "--check_path checkpoints/class-10-20 --batchSize 64 --result_path out --nz 110 --dataroot train",
            "acgan-imagenet",
            {"num_samples": 64, "batch_size": 100, "test_path": "out"},
        ),
        # Not published; the data decide the recipe.
        ("train", "--dataset digits", "acgan-digits", {}),
        ("train", "--dataset mnist", "acgan-mnist", {"imsize": 32, "z_dim": 100, "dropout": 0.25}),
        ("train", "--dataset fashion-mnist --data_path train", "acgan-mnist", {"dataset": "fashion-mnist"}),
        ("train", "--dataset cifar10", "acgan-cifar10", {"data_path": None}),
        ("train", "--dataset cifar10 --data_path cifar", "sagan-imagenet", {"imsize": 32, "attention_size": 16}),
        ("train", "--dataset folder --data_path train", "sagan-imagenet", {"dataset": "folder"}),
        ("train", "--dataset folder --dataroot train", "acgan-imagenet", {"classes": None, "num_classes": None}),
        ("train", "--dataset fake", "sagan-imagenet", {"dataset": "fake"}),
        ("train", "--model acgan-mlp", "acgan-mlp", {"model": "acgan-mlp", "dropout": 0.4}),
        ("train", "--total_step 7", "acgan-digits", {"total_step": 7}),
    ],
)
def test_a_command_means_its_recipe(program, command, recipe, meaning, capsys):
    p = parse(command, program)
    assert p.recipe == recipe
    assert {name: getattr(p, name) for name in meaning} == meaning
    assert capsys.readouterr().out.startswith(f"recipe {recipe} (")


# (command without --recipe, the recipe that it means); {} stands for "=" or " " before a value.
INFERRED = [
    *[(f"--model{{}}{name}{data}", "sagan-imagenet" if name == "sagan" else name)
      for name, data in (("sagan", " --data_path train"), ("sagan-cifar10", ""),
                         ("acgan-imagenet", " --dataroot{}train"), ("acgan-imagenet-torch", " --data_path{}train"),
                         ("acgan-cifar10", ""), ("acgan-mnist", ""), ("acgan-mlp", ""), ("acgan-digits", ""))],
    ("--dataset{}imagenet --dataroot{}train", "acgan-imagenet-torch"),
    ("--dataset{}imagenet --data_path{}train", "sagan-imagenet"),
    ("--dataset{}cifar10 --data_path{}cifar", "sagan-imagenet"),
    ("--dataset{}cifar10 --dataroot{}cifar", "acgan-cifar10"),
    ("--dataset{}cifar10 --imageSize{}32 --outf{}sagan_models", "acgan-cifar10"),
    ("--dataset{}cifar10", "acgan-cifar10"),
    ("--dataset{}mnist", "acgan-mnist"),
    ("--dataset{}mnist --dataroot{}train", "acgan-mnist"),
    ("--dataset{}fashion-mnist", "acgan-mnist"),
    ("--dataset{}digits", "acgan-digits"),
    ("--dataroot{}train", "acgan-imagenet"),
    ("--dataroot{}train --check_path{}sagan_models", "acgan-imagenet"),
    ("--dataroot{}train --imageSize{}128 --batchSize{}50", "acgan-imagenet"),
    ("--dataset{}folder --dataroot{}train", "acgan-imagenet"),
    ("--data_path{}train", "sagan-imagenet"),
    ("--data_path{}train --imageSize{}64", "sagan-imagenet"),
    ("--dataset{}folder --data_path{}train", "sagan-imagenet"),
    ("--dataset{}fake", "sagan-imagenet"),
    ("--total_step{}7", "acgan-digits"),
    ("--netG{}w.pdparams --batchSize{}8", "acgan-digits"),
]  # fmt: skip
INFERRED_BY_TEST = [
    ("--check_path{}checkpoints/class-10-20 --dataroot{}train", "acgan-imagenet"),
    ("--samples{}w.pdparams --dataset{}digits --recipe{}acgan-digits", "acgan-digits"),
    ("--samples{}w.pdparams --metrics{}none", "none"),
    ("--pretrained_model{}w.pdparams --dataset{}cifar10", "sagan-imagenet"),
    ("--netG{}w.pdparams --dataset{}imagenet --dataroot{}train", "sagan-imagenet"),
    ("--netG{}w.pdparams --test_data_path{}val --dataroot{}train", "sagan-imagenet"),
    ("--model{}acgan-cifar10 --pretrained_model{}w.pdparams", "acgan-cifar10"),
]


@pytest.mark.parametrize(("command", "recipe"), INFERRED + INFERRED_BY_TEST)
def test_every_spelling_of_an_option_means_the_same_recipe(command, recipe):
    program = "test" if (command, recipe) in INFERRED_BY_TEST else "train"
    spaced = parse(command.replace("{}", " "), program)
    assert spaced.recipe == recipe
    assert parse(command.replace("{}", "="), program) == spaced


@pytest.mark.parametrize(("command", "recipe"), INFERRED)
def test_every_spelling_goes_on_with_the_run_of_its_recipe(command, recipe, files):
    """Newer runs of the other recipes exist. Without a run of its recipe, the command starts a new run."""
    spellings = [command.replace("{}", between) for between in " ="]
    for spelled in spellings:
        assert run_to_resume(f"{spelled} --resume auto") is None
    for other in RECIPES:
        start_run(files / "sagan_models" / f"{other}-1", "")
    start_run(files / "sagan_models" / f"{recipe}-2", spellings[0])
    base = {"recipe": recipe} if "netG" in command else None  # parameters of the checkpoint
    for spelled in spellings:
        for resume in ("--resume auto", "--resume=auto"):
            assert run_to_resume(f"{spelled} {resume}", base) == Path("sagan_models", f"{recipe}-2")
            assert parse(f"{spelled} {resume}", base=base).name == f"{recipe}-2"


def run_to_resume(command, base=None):
    return CommandLine(shlex.split(command)).run_to_resume(base)


def test_the_first_line_says_which_recipe_and_why(capsys):
    parse("")
    assert capsys.readouterr().out == "recipe acgan-digits (no options given)\n"
    parse("--dataroot train")
    assert capsys.readouterr().out == "recipe acgan-imagenet (--dataroot)\n"


def test_published_defaults_of_sagan():
    """The defaults of parameters.py in the published Paddle SAGAN replication."""
    published = {
        "dataset": "imagenet", "batch_size": 64, "total_step": 3_000_000, "d_steps_per_iter": 1, "g_steps_per_iter": 1,
        "d_lr": 0.0004, "g_lr": 0.0001, "beta1": 0.0, "beta2": 0.9, "adv_loss": "hinge", "z_dim": 128, "g_conv_dim": 64,
        "d_conv_dim": 64, "lambda_gp": 10.0, "inst_noise_sigma": 0.0, "inst_noise_sigma_iters": 2000, "imsize": 128,
        "dont_shuffle": False, "dont_drop_last": False, "dont_resize": False, "centercrop": False,
        "centercrop_size": 128, "dont_normalize": False, "log_step": 10, "sample_step": 100, "model_save_step": 100,
        "max_frames_per_gif": 5000, "state_dict_or_model": "state_dict", "manual_seed": 29, "num_workers": 4,
        "model_weights_dir": "weights", "sample_images_dir": "samples", "save_path": "sagan_models", "parallel": True,
    }  # fmt: skip
    p = parse("--data_path train")
    assert {name: getattr(p, name) for name in published} == published
    assert p.ema_decay == 0


ACGAN = {"adv_loss": "dcgan", "d_lr": 2e-4, "g_lr": 2e-4, "beta1": 0.5, "beta2": 0.999, "class_loss_weight": 1.0}
REACGAN = {
    "class_loss": "d2d_ce", "class_loss_weight": 0.5, "d2d_embed_dim": 512, "d2d_temperature": 0.5, "d2d_margin": 0.98,
    "adv_loss": "hinge", "ema_decay": 0.9999,
}  # fmt: skip
TUTORIAL = {"dataset": "mnist", "imsize": 32, "batch_size": 64, "z_dim": 100, "niter": 200, "channels": 1}
PAIR = {"batch_size": 100, "z_dim": 110, "niter": 500, "dropout": 0.5, "num_classes": 10, "channels": 3}


@pytest.mark.parametrize(
    ("recipe", "published"),
    {
        "sagan-imagenet": {"model": "sagan", "channels": 3, "num_classes": None, "attention_size": 32},
        "sagan-imagenet-ema": {
            "model": "sagan",
            "imsize": 128,
            "centercrop": True,
            "mirror": False,
            "global_batch_size": 256,
            "sync_bn": False,
            "d_lr": 4e-4,
            "g_lr": 1e-4,
            "beta1": 0.0,
            "beta2": 0.999,
            "d_steps_per_iter": 1,
            "ema_decay": 0.999,
            "ema_start": 2000,
            "real_split": "train",
            "use_ema": True,
            "total_step": 1_000_000,
            "attention_size": 64,
        },
        "sagan-cifar10": {
            "model": "sagan-cifar10",
            "g_conv_dim": 256,
            "d_conv_dim": 128,
            "attention_size": 16,
            "imsize": 32,
            "d_lr": 2e-4,
            "g_lr": 2e-4,
            "beta1": 0.5,
            "beta2": 0.999,
            "d_steps_per_iter": 5,
            "batch_size": 64,
            "total_step": 100_000,
            "class_loss": "cross_entropy",
            "mirror": False,
            "adv_loss": "hinge",
        },
        "reacgan-cifar10": REACGAN | {"model": "sagan-cifar10", "imsize": 32, "num_classes": 10, "batch_size": 128},
        "reacgan-imagenet": REACGAN | {"model": "sagan", "imsize": 128, "num_classes": None, "attention_size": 64},
        "acgan-imagenet": ACGAN | PAIR | {"imsize": 128, "classes": "10,20", "centercrop": True, "save_freq": 5},
        "acgan-imagenet-torch": ACGAN | PAIR | {"imsize": 128, "classes": "10,20", "centercrop": True, "save_freq": 1},
        "acgan-cifar10": ACGAN | PAIR | {"imsize": 32, "classes": None},
        "acgan-mnist": ACGAN | TUTORIAL | {"dropout": 0.25},
        "acgan-mlp": ACGAN | TUTORIAL | {"dropout": 0.4},
        "acgan-digits": {"model": "acgan-digits", "dataset": "digits", "imsize": 16, "channels": 1},
        "sagan-digits": {"model": "sagan", "dataset": "digits", "imsize": 16, "attention_size": 8, "channels": 1},
        "sagan-photos": {"model": "sagan", "imsize": 64, "attention_size": 32, "mirror": True, "centercrop_size": 64},
    }.items(),
)
def test_recipes_hold_the_published_settings(recipe, published):
    data = "--data_path train" if recipe in OF_FOLDERS else ""
    p = parse(f"--recipe {recipe} {data}")
    assert p.recipe == recipe
    assert {name: getattr(p, name) for name in published} == published


def test_every_published_setting_has_a_recipe():
    rows = "sagan-imagenet acgan-imagenet acgan-imagenet-torch acgan-cifar10 acgan-mnist acgan-mlp acgan-digits"
    later = "sagan-imagenet-ema sagan-cifar10 reacgan-cifar10 reacgan-imagenet sagan-digits sagan-photos"
    assert sorted(f"{rows} {later}".split()) == RECIPES


@pytest.mark.parametrize("recipe", ["sagan-imagenet-ema", "reacgan-imagenet"])
def test_batch_norm_of_the_later_recipes_sees_32_images_with_any_number_of_processes(recipe, monkeypatch):
    for count in (1, 2, 4, 8):
        monkeypatch.setenv("PADDLE_TRAINERS_NUM", str(count))
        p = parse(f"--recipe {recipe} --data_path train")
        assert (p.batch_size, p.rounds) == (256 // count, 8 // count)


def test_a_batch_smaller_than_the_rounds_of_its_recipe_is_one_round(monkeypatch):
    p = parse("--recipe reacgan-imagenet --data_path train --batch_size 4")
    assert (p.batch_size, p.batch_size_in_gpu, p.rounds) == (4, None, 1)
    assert "--batch_size_in_gpu 32" in refusal("--data_path train --batch_size 4 --batch_size_in_gpu 32")
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "16")
    assert parse("--recipe reacgan-imagenet --data_path train").rounds == 1


# Options, their other names, and the layers they come from


@pytest.mark.parametrize(
    ("published", "field", "value"),
    [
        ("--dataroot train", "data_path", "train"),
        ("--workers 2", "num_workers", 2),
        ("--batchSize 8", "batch_size", 8),
        ("--imageSize 16", "imsize", 16),
        ("--nz 50", "z_dim", 50),
        ("--ngf 8", "g_conv_dim", 8),
        ("--ndf 9", "d_conv_dim", 9),
        ("--niter 3", "niter", 3),
        ("--lr 0.01", "d_lr", 0.01),
        ("--lr 0.01", "g_lr", 0.01),
        ("--lr 0.01 --g_lr 0.5", "g_lr", 0.5),
        ("--classes_idx 3,7", "classes", "3,7"),
        ("--classes_idx 3,7", "num_classes", 4),
        ("--outf out", "save_path", "out"),
        ("--check_path out", "save_path", "out"),
        ("--manualSeed 5", "manual_seed", 5),
        ("--netG netG_epoch_5.pth", "pretrained_model", "netG_epoch_5.pth"),
        ("--netG netG_epoch_5.pth --netD ./netD_epoch_5.pth", "pretrained_model", "netG_epoch_5.pth"),
        ("--netG ''", "pretrained_model", None),
        ("--disable_cuda", "device", "cpu"),
        ("--cuda", "device", None),
        ("--cuda --gpu_id 2 --ngpu 1", "device", "gpu:2"),
        ("--ngpu 0", "device", "cpu"),
        ("--device gpu --gpu_id 1", "device", "gpu:1"),
        ("--device gpu --cuda", "device", "gpu"),
        ("--parallel 0", "parallel", False),
        ("--parallel", "parallel", True),
        ("--centercrop", "centercrop", True),
        ("--centercrop false", "centercrop", False),
        ("--save_freq 2", "save_freq", 2),
        ("--g_lr 1e-5", "g_lr", 1e-5),
        ("--classes none", "classes", None),
        ("--classes random:4:1", "num_classes", 4),
        ("--classes 'zero, one'", "num_classes", 2),
        (f"--manual_seed {2**63 - 1}", "manual_seed", 2**63 - 1),
    ],
)
def test_option_sets_its_field(published, field, value):
    recipe = "" if "dataroot" in published else "--recipe acgan-digits"
    result = getattr(parse(f"{recipe} {published}"), field)
    assert (result, type(result)) == (value, type(value))


SAGAN_OPTIONS = """--test_path out --test_data_path val --batch_size_test 1 --dataset imagenet --data_path train
    --save_path out --num_classes 10 --batch_size 64 --total_step 3 --d_steps_per_iter 1 --g_steps_per_iter 1
    --d_lr 0.0004 --g_lr 0.0001 --beta1 0 --beta2 0.9 --adv_loss wgan_gp --z_dim 128 --g_conv_dim 64 --d_conv_dim 64
    --lambda_gp 10 --inst_noise_sigma 0 --inst_noise_sigma_iters 2000 --dont_shuffle --dont_drop_last --dont_resize
    --imsize 128 --centercrop --centercrop_size 128 --dont_normalize --log_step 10 --sample_step 100
    --model_save_step 100 --max_frames_per_gif 5000 --pretrained_model w.pdparams --state_dict_or_model state_dict
    --manual_seed 29 --disable_cuda --parallel 1 --num_workers 4 --model_weights_dir weights
    --sample_images_dir samples --name sagan --batch_size_in_gpu 16"""
ACGAN_OPTIONS = """--dataroot train --workers 2 --batchSize 100 --imageSize 128 --nz 110 --ngf 64 --ndf 64
    --niter 500 --lr 0.0002 --beta1 0.5 --check_path checkpoints/class-10-20 --result_path out --class_result_path out
    --log_path log --save_freq 5 --num_classes 10 --which_epoch 499 --classes_idx 10,20 --outf out --manualSeed 1
    --cuda --ngpu 1 --gpu_id 0"""


COMMON = {"data_path": "train", "imsize": 128, "z_dim": 110, "g_conv_dim": 64, "num_workers": 2, "manual_seed": 1}


@pytest.mark.parametrize(
    ("program", "options", "taken"),
    [
        ("train", SAGAN_OPTIONS, {"batch_size": 64, "total_step": 3, "adv_loss": "wgan_gp", "save_path": "out"}),
        ("train", SAGAN_OPTIONS, {"dont_shuffle": True, "centercrop": True, "device": "cpu", "batch_size_in_gpu": 16}),
        ("test", SAGAN_OPTIONS, {"test_path": "out", "batch_size_test": 1, "pretrained_model": "w.pdparams"}),
        ("train", ACGAN_OPTIONS, COMMON | {"batch_size": 100, "save_path": "out", "g_lr": 2e-4, "niter": 500}),
        ("train", ACGAN_OPTIONS, {"save_freq": 5, "classes": "10,20", "num_classes": 10, "device": "gpu:0"}),
        ("test", ACGAN_OPTIONS, COMMON | {"num_samples": 100, "check_path": "checkpoints/class-10-20"}),
        ("test", ACGAN_OPTIONS, {"which_epoch": 499, "test_path": "out", "batch_size": 100}),
    ],
)
def test_both_programs_take_every_published_option(program, options, taken):
    p = parse(options, program)
    assert {name: getattr(p, name) for name in taken} == taken


def test_options_without_effect_are_reported(capsys):
    parse("--log_path log --class_result_path out --result_path out --ngpu 4")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["--result_path", "--class_result_path", "--log_path", "--ngpu"]
    assert all("no effect" in line for line in lines)


def test_names_with_another_meaning_in_test_py_are_reported(capsys):
    parse("--check_path checkpoints/class-10-20 --batchSize=16 --result_path out", "test")
    assert capsys.readouterr().err.splitlines() == [
        "--batchSize means --num_samples in test.py, as published",
        "--result_path means --test_path in test.py, as published",
    ]
    parse("--batchSize 16")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("program", "command", "lines"),
    [
        ("test", "--netG w.pdparams --save_path out", ["--save_path has no effect in this test; --test_path says"]),
        ("test", "--pretrained_model w.pdparams --outf=out", ["--outf has no effect in this test; --test_path says"]),
        ("test", "--samples w.pdparams --save_path out --metrics none", []),
        ("test", "--samples w.pdparams --metrics none --save_path out --test_path x",
         ["--save_path has no effect in this test; --test_path says"]),
        ("test", "--netG w.pdparams --total_step 5 --adv_loss hinge --lr=1 --name a",
         ["--adv_loss, --lr, --name, --total_step have no effect in test.py"]),
        ("test", "--netG w.pdparams --resume auto", ["--resume has no effect in test.py"]),
        ("test", "--netG w.pdparams --eval_step 5 --eval_samples 5 --ndf 8 --dropout 0.1",
         ["--dropout, --eval_samples, --eval_step, --ndf have no effect in test.py"]),
        ("test", "--netG w.pdparams --dont_shuffle --dont_drop_last",
         ["--dont_drop_last, --dont_shuffle have no effect in test.py"]),
        ("test", "--netG w.pdparams --batch_size 5", ["--batch_size has no effect without --standing_batches"]),
        ("test", "--netG w.pdparams --batch_size 5 --standing_batches 2", []),
        ("test", "--netG w.pdparams --global_batch_size 4", ["--global_batch_size has no effect in test.py"]),
        ("test", "--netG w.pdparams --batchSize 5", ["--batchSize means --num_samples in test.py, as published"]),
        ("test", "--check_path checkpoints/class-10-20 --which_epoch 499 --nz 110 --dataroot train --labels 3", []),
        ("test", "--netG w.pdparams --imsize 64 --ngf 64 --workers 0 --manualSeed 3 --device cpu --parallel", []),
        ("train", "--samples_dir s --which_epoch 3", ["--samples_dir, --which_epoch have no effect in train.py"]),
        ("train", "--samples s --samples_npz a --test_path t",
         ["--samples, --samples_npz, --test_path have no effect in train.py"]),
        ("train", "--metrics fid --labels 3 --eval_samples 5",
         ["--eval_samples, --labels, --metrics have no effect without --eval_step"]),
        ("train", "--data_path train --test_data_path val --inception_weights w --half_precision --reference r",
         ["--half_precision, --inception_weights, --reference, --test_data_path have no effect without --eval_step"]),
        ("train", "--metrics fid --labels 3 --eval_samples 5 --eval_step 5", []),
        # a later test of the run uses these
        ("train", "--num_samples 5 --truncation 1 --standing_batches 5 --use_ema false", []),
        ("train", "--batch_size_test 5", ["--batch_size_test has no effect since the generator always draws 16"]),
        ("test", "--netG w.pdparams --batch_size_test 5",
         ["--batch_size_test has no effect since the generator always draws 16 samples at once"]),
        ("train", "--name a --outf out --lr 1 --batchSize 8 --eval_step 0", []),
    ],
)  # fmt: skip
def test_options_of_the_other_program_are_reported_to_have_no_effect(program, command, lines, capsys):
    parse(command, program)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(lines)
    assert all(line.startswith(expected) for line, expected in zip(said, lines, strict=True)), said


def test_a_resumed_run_with_eval_step_takes_options_of_measuring(files, capsys):
    start_run(files / "runs" / "one", "--eval_step 5")
    capsys.readouterr()
    parse("--resume runs/one --eval_samples 7")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("options", ["", "--dataset digits", "--dataset cifar10", "--dataset folder --data_path train"])
def test_samples_have_no_recipe_unless_one_is_given(options, capsys):
    assert parse(f"--samples w.pdparams --metrics none {options}", "test").recipe == "none"
    assert capsys.readouterr().out == "recipe none (--samples)\n"
    named = parse(f"--samples w.pdparams --metrics none {options} --recipe sagan-imagenet", "test")
    assert named.recipe == "sagan-imagenet"


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ("--dataset digits", ("fid", "floor", "is", "accuracy", "distance")),
        ("--dataset cifar10", ("fid", "floor", "is")),
        ("--dataset cifar10 --data_path cifar", ("fid", "floor", "is")),
        ("--dataset cifar10 --data_path cifar --test_data_path val", ("fid", "floor", "is")),
        ("--dataset cifar10 --test_data_path val", ("fid", "is")),
        ("--dataset cifar10 --reference w.pdparams", ("fid", "is")),
        ("--dataset folder --data_path train --test_data_path val", ("fid", "is")),
        ("--dataset folder", ()),
        ("--dataset cifar10 --metrics kid,fid", ("kid", "fid")),
        ("--dataset cifar10 --metrics none", ()),
    ],
)
def test_default_metrics_fit_the_data(options, chosen):
    """The floor is among them if training images are available and are not a folder."""
    assert parse(f"--samples w.pdparams {options}", "test").chosen_metrics == chosen


def test_options_override_a_recipe_and_a_recipe_the_defaults(files):
    (files / "mine.yaml").write_text("model: acgan-mnist\ndataset: mnist\nimsize: 28\nd_lr: 1e-3\n")
    p = parse("--recipe mine.yaml --imsize 32")
    assert (p.recipe, p.imsize, p.d_lr, p.g_lr) == ("mine", 32, 1e-3, Parameters.g_lr)


def test_steps_and_epochs_replace_each_other(files):
    (files / "epochs.yaml").write_text("dataset: fake\nniter: 5\nsave_freq: 2\n")
    (files / "steps.yaml").write_text("dataset: fake\ntotal_step: 5\nmodel_save_step: 2\n")
    p = parse("--recipe epochs.yaml")
    assert (p.niter, p.save_freq) == (5, 2)
    p = parse("--recipe epochs.yaml --total_step 9 --model_save_step 3")
    assert (p.niter, p.total_step, p.save_freq, p.model_save_step) == (None, 9, None, 3)
    p = parse("--recipe steps.yaml --niter 7")
    assert (p.niter, p.save_freq, p.model_save_step) == (7, None, 2)
    assert "--total_step and --niter" in refusal("--total_step 9 --niter 3")
    assert "--model_save_step and --save_freq" in refusal("--model_save_step 9 --save_freq 3")


def test_another_data_set_drops_the_path_and_classes_of_the_recipe(files):
    (files / "run.yaml").write_text("dataset: folder\ndata_path: train\nclasses: '0,4'\nnum_classes: 4\n")
    p = parse("--recipe run.yaml --dataset fake")
    assert (p.data_path, p.classes, p.num_classes) == (None, None, None)
    p = parse("--recipe run.yaml --dataset folder")
    assert (p.data_path, p.classes, p.num_classes) == ("train", "0,4", 4)


def test_sagan_adapts_to_small_images():
    p = parse("--recipe sagan-imagenet --dataset cifar10")
    assert (p.imsize, p.attention_size) == (32, 16)
    p = parse("--recipe sagan-imagenet --dataset cifar10 --imsize 64")
    assert (p.imsize, p.attention_size) == (64, 32)
    p = parse("--data_path train --imsize 64 --centercrop")
    assert (p.centercrop_size, p.attention_size) == (64, 32)


def test_given_options_are_only_those_of_the_command():
    assert CommandLine(["--nz", "7", "--cuda", "--lr", "1"], "test").given == {
        "z_dim": 7, "device": None, "d_lr": 1.0, "g_lr": 1.0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("command", "read"),
    [
        ("", ["acgan-digits"]),
        ("--resume auto", ["acgan-digits", "parameters"]),
        ("--resume sagan_models/acgan-digits-1", ["parameters"]),
        ("--recipe mine.yaml --resume auto --name acgan-digits-1", ["mine", "parameters"]),
        ("--pretrained_model w.pdparams", []),
        ("--pretrained_model w.pdparams --resume auto", ["acgan-digits", "parameters"]),
        ("--pretrained_model w.pdparams --recipe mine.yaml", ["mine"]),
    ],
)
def test_a_command_reads_each_file_once(command, read, files):
    """It reads no file that it does not need."""
    (files / "mine.yaml").write_text("recipe: acgan-digits\ndataset: digits\nmodel: acgan-digits\nimsize: 16\n")
    folder = files / "sagan_models" / "acgan-digits-1"
    start_run(folder, "--pretrained_model w.pdparams" if "w.pdparams" in command else "")
    base = read_parameters(folder / RUN_FILE) if "w.pdparams" in command else None
    opened, listening = [], True
    sys.addaudithook(lambda event, found: event == "open" and listening and opened.append(str(found[0])))
    line = CommandLine(shlex.split(command))
    assert bool(line.checkpoint_to_load()) == (base is not None)
    line.parameters(base)
    listening = False
    assert sorted(Path(path).stem for path in opened if path.endswith(".yaml")) == sorted(read)


def test_a_recipe_does_not_choose_the_weights_to_test(files):
    """Such as a run's file, which may name the weights that the run started from."""
    (files / "run.yaml").write_text("pretrained_model: w.pdparams\ncheck_path: checkpoints/class-10-20\n")
    assert "give one thing to test" in refusal("--recipe run.yaml", "test")
    assert parse("--recipe run.yaml --pretrained_model netG_epoch_5.pth", "test").check_path is None


# Parameters of a run or a checkpoint


def test_parameters_of_a_checkpoint_replace_the_recipe(capsys):
    base = dataclasses.asdict(parse("--recipe acgan-mnist --z_dim 50"))
    p = parse("--pretrained_model w.pdparams --num_samples 5", "test", base)
    assert (p.model, p.z_dim, p.num_samples) == ("acgan-mnist", 50, 5)
    assert capsys.readouterr().out.endswith("recipe acgan-mnist (as the checkpoint says)\n")
    assert "acgan-mnist" in refusal("--pretrained_model w.pdparams --recipe acgan-mlp", "test", base)
    parse("--pretrained_model w.pdparams --recipe acgan-mnist", "test", base)


@pytest.mark.parametrize("command", ["", "--num_classes none", "--classes none", "--dataset folder --num_classes none"])
def test_a_test_has_as_many_classes_as_the_weights(command):
    base = dataclasses.asdict(parse("--recipe acgan-mnist --num_classes 9"))
    assert parse(f"--pretrained_model w.pdparams --metrics none {command}", "test", base).num_classes == 9


@pytest.mark.parametrize(
    ("command", "classes"),
    [
        ("", None),  # the data decide
        ("--data_path train --dataset folder", None),
        ("--num_classes 4", 4),
        ("--classes 0,5", 5),
        ("--dataset fake", None),
    ],
)
def test_a_run_from_a_checkpoint_has_as_many_classes_as_its_data(command, classes):
    base = dataclasses.asdict(parse("--recipe acgan-mnist --num_classes 9"))
    assert parse(f"--pretrained_model w.pdparams {command}", "train", base).num_classes == classes


@pytest.mark.parametrize(
    ("command", "split"),
    [
        ("--dataset cifar10", "train"),  # as published FIDs
        ("--dataset cifar10 --test_data_path cifar", "test"),
        ("--dataset cifar10 --test_data_path cifar --real_split both", "both"),
        ("--recipe acgan-cifar10 --dataset folder --data_path train", "test"),
        ("--data_path train --test_data_path val", "test"),
        ("--data_path train --real_split train", "train"),
        ("", "test"),
    ],
)
def test_each_recipe_compares_with_the_real_images_of_its_source(command, split):
    assert parse(f"{command} --eval_step 1000 --metrics is", "train").real_split == split
    p = parse(f"{command} --samples w.pdparams --metrics is", "test")
    assert p.real_split == split


def test_training_images_are_measured_if_they_are_compared_with():
    command = "--samples w.pdparams --data_path train --dataset folder"
    assert parse(command, "test").chosen_metrics == ()
    assert parse(f"{command} --real_split train", "test").chosen_metrics == ("fid", "is")


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("--dataset folder --real_split train --metrics fid", "--real_split train compares with training images: give"),
        ("--test_data_path val --real_split both --metrics fid", "--real_split both compares with training images"),
        (
            "--dataset folder --data_path train --real_split both --metrics fid",
            "both also needs test images: give --",
        ),
        (
            "--dataset folder --real_split both --metrics fid",
            "needs real images: give --test_data_path DIR, or --ref",
        ),
        ("--data_path train --real_split train --metrics floor", "--metrics floor needs test images: give --test_data"),
    ],
)
def test_missing_real_images_are_refused(command, found):
    assert found in refusal(f"--samples w.pdparams {command}", "test")


@pytest.mark.parametrize("values", [{"imsize": "big"}, {"imsize": [1]}, {"shell": "ls"}, {"z_dim": None}])
def test_parameters_of_a_checkpoint_are_checked(values):
    message = refusal("--pretrained_model w.pdparams", "test", {"recipe": "acgan-mnist"} | values)
    assert "the checkpoint" in message
    assert next(iter(values)) in message


def start_run(folder, command):
    folder.mkdir(parents=True)
    (folder / RUN_FILE).write_text(parse(command).to_yaml())


def test_resume_takes_the_folder_of_a_run(files):
    start_run(files / "runs" / "one", "--recipe acgan-mnist --z_dim 50")
    p = parse("--resume runs/one --total_step 9")
    assert (p.recipe, p.z_dim, p.total_step, p.niter) == ("acgan-mnist", 50, 9, None)
    assert (p.save_path, p.name, p.resume) == (str(files / "runs"), "one", "runs/one")
    assert "runs/none" in refusal("--resume runs/none")
    assert "--name" in refusal("--resume runs/one --name two")
    assert "--save_path" in refusal("--resume runs/one --save_path other")
    assert parse("--resume runs/one --name one --save_path runs").name == "one"
    assert "acgan-mnist" in refusal("--resume runs/one --recipe acgan-mlp")


def test_resume_takes_the_current_folder(files, monkeypatch):
    start_run(files / "runs" / "one", "")
    monkeypatch.chdir(files / "runs" / "one")
    p = parse("--resume .")
    assert (p.save_path, p.name) == (str(files / "runs"), "one")


def test_resume_auto_goes_on_with_the_named_or_newest_run_or_starts_one(files):
    p = parse("--resume auto")
    assert (p.name, p.resume, p.z_dim) == (None, "auto", 64)
    start_run(files / "sagan_models" / "acgan-digits-9", "--z_dim 20")
    start_run(files / "sagan_models" / "acgan-digits-10", "--z_dim 30")
    start_run(files / "sagan_models" / "acgan-mnist-11", "--recipe acgan-mnist")
    start_run(files / "sagan_models" / "mine", "--z_dim 40")
    p = parse("--resume auto")
    assert (p.name, p.z_dim, p.save_path) == ("acgan-digits-10", 30, "sagan_models")
    p = parse("--resume auto --name mine")
    assert (p.name, p.z_dim) == ("mine", 40)
    p = parse("--resume auto --name new --z_dim 50")
    assert (p.name, p.z_dim) == ("new", 50)
    assert parse("--resume auto --recipe acgan-mnist").name == "acgan-mnist-11"


STARTS = {  # {command: number of classes in its data}
    "--recipe acgan-digits": 10,
    "--recipe acgan-mnist": 10,
    "--recipe acgan-mlp --imsize 28": 10,
    "--dataset cifar10": 10,
    "--dataset=cifar10 --data_path=cifar": 10,
    "--dataroot train": 10,
    "--dataset imagenet --dataroot train": 10,
    "--dataset folder --dataroot train": 9,
    "--data_path train": 1000,
    "--dataset folder --data_path train --imsize 64": 9,
    "--dataset folder --data_path train --imsize 64 --centercrop --classes none": 9,
    "--dataset folder --data_path train --num_classes 9": 9,
    "--dataset folder --data_path train --classes a,b,c": 3,
    "--recipe mine.yaml": 9,
    "--recipe classes.yaml --classes none": 9,
    "--dataset fake": 10,
}
CHOICES = [  # a command gets one entry of each list
    ["", "--classes none", "--num_classes none", "--classes=none --num_classes=none", "--classes_idx none"],
    ["", "--total_step 9", "--niter 3", "--niter=none", "--niter none --total_step 7"],
    ["", "--model_save_step 5", "--save_freq 2", "--save_freq none", "--save_freq=none --model_save_step=4"],
    ["", "--batch_size 8", "--global_batch_size 12", "--batchSize=6", "--global_batch_size none",
     "--batch_size_in_gpu 1", "--batch_size_in_gpu none", "--global_batch_size 16 --batch_size_in_gpu 4"],
    ["", "--centercrop", "--centercrop false", "--dont_drop_last", "--dont_shuffle=true"],
    ["", "--lr 0.1", "--d_lr 1e-3", "--lr=0.1 --g_lr 1e-3", "--d_steps_per_iter 3", "--ema_decay 0.9", "--amp none"],
    ["", "--cuda", "--disable_cuda", "--device none", "--ngpu 0", "--workers 2", "--parallel 0", "--log_path log"],
    ["", "--netG w.pdparams", "--pretrained_model=w.pdparams", "--netG ''", "--state_dict_or_model state_dict"],
    ["", "--test_data_path none", "--eval_step 0 --metrics none", "--num_samples 5 --labels 3", "--truncation none",
     "--keep_checkpoints 0", "--samples none", "--reference none --half_precision false"],
    ["", "--name mine", "--outf out", "--check_path=out", "--save_path out --name mine"],
]  # fmt: skip


class Data:
    """A stand-in for a data set, with the attributes that `resolve` reads."""

    def __init__(self, num_classes):
        self.num_classes = num_classes

    def __len__(self):
        return 1050


def start_as_the_trainer_does(command, data, base):
    """Start a run by `command`; returns (parameters, folder)."""
    p = resolve(parse(command, base=base), data)
    folder = Path(p.save_path, p.name or f"{p.recipe}-1")
    folder.mkdir(parents=True)
    (folder / RUN_FILE).write_text(p.to_yaml())
    return p, folder


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("seed", range(8))
def test_the_command_that_starts_a_run_resumes_it(start, seed, files):
    """With any options that the data resolve. --resume auto is in the first command or added later, or --resume has the
    folder.
    """
    (files / "mine.yaml").write_text("dataset: folder\ndata_path: train\nimsize: 64\nsave_freq: 2\nniter: 4\n")
    (files / "classes.yaml").write_text("dataset: folder\ndata_path: train\nclasses: a,b\nnum_classes: 2\n")
    draw = random.Random(f"{start} {seed}")
    choices = [draw.choice(options) for options in CHOICES]
    if "classes" in start:
        choices[0] = ""
    command = " ".join([start, *choices, draw.choice(["", "--resume auto", "--resume=auto"])])
    base = dataclasses.asdict(resolve(parse(start), Data(STARTS[start]))) if "w.pdparams" in command else None
    data = Data(STARTS[start])
    started, folder = start_as_the_trainer_does(command, data, base)
    bare = command.replace("--resume auto", "").replace("--resume=auto", "")
    for resume in ("auto", folder, folder.absolute()):
        resumed = resolve(parse(f"{bare} --resume {resume}", base=base if resume == "auto" else None), data)
        assert Path(resumed.save_path, resumed.name).resolve() == folder.resolve()
        own = {"resume": None, "name": None, "save_path": None}
        assert dataclasses.replace(resumed, **own) == dataclasses.replace(started, **own)


@pytest.mark.parametrize(("name", "said"), [("--name tulips", "run tulips"), ("", "run of the recipe acgan-digits")])
def test_resume_auto_tells_if_it_starts_a_run(name, said, files, capsys):
    parse(f"--resume auto {name}")
    assert f"--resume auto: sagan_models has no {said} yet, so a new run starts\n" in capsys.readouterr().out


def test_resume_auto_skips_folders_of_runs_that_never_began(files):
    start_run(files / "sagan_models" / "acgan-digits-1", "--z_dim 20")
    (files / "sagan_models" / "acgan-digits-2").mkdir()
    p = parse("--resume auto")
    assert (p.name, p.z_dim) == ("acgan-digits-1", 20)


def test_resume_auto_with_a_checkpoint_goes_on_with_runs_of_its_recipe(files):
    command, base = "--resume auto --pretrained_model w.pdparams", {"recipe": "acgan-mnist", "z_dim": 50}
    base |= {"model": "acgan-mnist", "dataset": "mnist", "imsize": 32}
    start_run(files / "sagan_models" / "acgan-digits-1", "")
    assert run_to_resume(command) is None
    assert parse(command, base=base).name is None
    folder = files / "sagan_models" / "acgan-mnist-1"
    folder.mkdir()
    (folder / RUN_FILE).write_text(parse(command, base=base).to_yaml())
    assert parse(command, base=base).name == "acgan-mnist-1"
    for more in ("--recipe acgan-mnist", "--name acgan-mnist-1"):
        assert run_to_resume(f"{command} {more}") == Path("sagan_models/acgan-mnist-1")


def test_a_parameters_file_of_a_run_starts_a_new_run(files):
    """--recipe FILE with the file of a resumed run does not resume that run."""
    start_run(files / "sagan_models" / "acgan-digits-1", "--resume auto")
    p = parse(f"--recipe sagan_models/acgan-digits-1/{RUN_FILE}")
    assert (p.resume, p.name) == (None, None)


def test_run_numbers(files):
    for name in ("a-2", "a-10", "a-x", "b-3", "a-1-2", "aa-7"):
        (files / "runs" / name).mkdir(parents=True)
    assert run_numbers(files / "runs", "a") == [2, 10]
    assert run_numbers(files / "nowhere", "a") == []


# As processes


def run(*command):
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def test_help_shows_every_option_with_its_default_and_does_not_load_paddle():
    shown = {}
    for program in ("train", "test"):
        process = run("-X", "importtime", f"{program}.py", "--help")
        assert process.returncode == 0
        assert not re.search(r"\| +paddle(\.|$)", process.stderr, re.MULTILINE)
        assert all(recipe in process.stdout for recipe in RECIPES)
        options = re.findall(r"^  --(\w+)(.*(?:\n {4,}\S.*)*)", process.stdout, re.MULTILINE)
        shown |= {name: " ".join(text.split()) for name, text in options}
    assert set(FIELDS) <= set(shown)
    for name, field in FIELDS.items():
        assert len(shown[name]) > 15
        if name == "recipe":  # its default depends on the rest of the command
            assert "[" not in shown[name]
        elif field.default is not None and field.default is not False:
            assert shown[name].endswith(f"[{field.default}]".lower()), name


@pytest.mark.parametrize("program", ["generate", "gallery", "demo", "export"])
def test_the_help_of_a_command_that_draws_has_no_texts_on_training(program, capsys):
    with pytest.raises(SystemExit):
        CommandLine(["--help"], program)
    text = " ".join(capsys.readouterr().out.split())
    assert "--batch_size N images in each batch of --standing_batches (also --batchSize) [64]" in text
    wrong = ("Training:", "Testing:", "in a step", "test.py also", "as many as the data", "to train on", "in pack.py")
    assert [words for words in wrong if words in text] == []


def test_a_mistake_ends_with_one_line_and_code_2():
    process = run("train.py", "--imsise", "32")
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.count("\n") == 1
    assert "--imsise" in process.stderr


def test_processes_share_the_global_batch(files, monkeypatch):
    assert parse("--global_batch_size 60").batch_size == 60
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "4")
    shared = parse("--global_batch_size 60")
    assert (shared.batch_size, shared.global_batch_size) == (15, 60)
    refused = refusal("--global_batch_size 62")
    assert "--global_batch_size 62" in refused and "4 processes" in refused and "multiple of 4" in refused
    (files / "run").mkdir()
    (files / "run" / RUN_FILE).write_text(shared.to_yaml())
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    resumed = parse("--resume run")
    assert (resumed.batch_size, resumed.global_batch_size) == (30, 60)
    changed = parse("--resume run --batch_size 8")
    assert (changed.batch_size, changed.global_batch_size) == (8, None)

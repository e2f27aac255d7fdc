"""Commands that are refused, each in one sentence."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
from parsing import parse, refusal
from PIL import Image

from command.line import CommandLine
from dataset import load_dataset
from parameters import Parameters
from utils import RUN_FILE, UserError

pytestmark = pytest.mark.usefixtures("files")

FIELDS = {field.name: field for field in dataclasses.fields(Parameters)}


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("--imsise 32", ["--imsise", "did you mean --imsize?"]),
        ("--batchsize 32", ["--batchsize", "did you mean --batch_size?"]),
        ("--imsi 32", ["--imsi"]),
        ("stray", ["'stray' is not an option", "leave it out"]),
        ("beta2", ["'beta2' is not an option", "leave it out"]),
        ("--data_path train val", ["'val' is not an option", "leave it out"]),
        ("'' --imsize 16", ["'' is not an option", "leave it out"]),
        ("val", ["'val' is not an option", "of one; did you mean --data_path val?; --help"]),
        ("--imsize 32 w.pdparams", ["did you mean --data_path w.pdparams?"]),
        ("--imsise 32 stray", ["--imsise", "did you mean --imsize?"]),
        ("--imsize", ["--imsize"]),
        ("--imsize big", ["--imsize", "'big'", "a whole number"]),
        ("--imsize 64.0", ["--imsize", "'64.0'"]),
        ("--imsize 1_6", ["--imsize", "'1_6'"]),
        ("--imsize 0", ["--imsize", "from 1"]),
        (f"--imsize {'9' * 5000}", ["--imsize"]),
        ("--imageSize big", ["--imageSize", "'big'"]),
        ("--imsize 32", ["--imsize 32", "acgan-digits", "16"]),
        ("--data_path train --imsize 100", ["--imsize 100", "sagan", "give 16, 32, 64, 128 or 256"]),
        ("--dataroot train --imageSize 64", ["--imageSize 64", "acgan-imagenet", "128"]),
        ("--recipe acgan-mnist --imsize 30", ["--imsize 30", "multiple of 4"]),
        ("--data_path train --attention_size 128", ["--attention_size 128", "--imsize 128"]),
        ("--data_path train --attention_size 24", ["--attention_size 24", "give 8, 16, 32 or 64"]),
        ("--data_path train --attention_size 4", ["--attention_size 4"]),
        ("--centercrop --centercrop_size 8", ["--centercrop_size 8", "--imsize 16"]),
        ("--batch_size 10 --batch_size_in_gpu 4", ["--batch_size_in_gpu 4", "--batch_size 10"]),
        ("--batch_size 10 --global_batch_size 20", ["--batch_size and --global_batch_size", "one of them"]),
        ("--global_batch_size 10 --batch_size_in_gpu 4", ["--batch_size_in_gpu 4", "--global_batch_size 10"]),
        ("--batch_size -1", ["--batch_size", "'-1'"]),
        ("--batch_size 1000000000", ["--batch_size"]),
        ("--total_step 0", ["--total_step"]),
        ("--total_step 2147483648", ["--total_step", "from 1 to 2147483647"]),
        ("--eval_step 2147483648", ["--eval_step", "from 0 to 2147483647"]),
        ("--lambda_gp inf", ["--lambda_gp", "finite"]),
        ("--device gpu:1000", ["--device", "gpu:NUMBER", "0 to 999"]),
        ("--num_samples 0", ["--num_samples"]),
        ("--log_step 0", ["--log_step"]),
        ("--num_workers 100000", ["--num_workers"]),
        ("--z_dim 0", ["--z_dim"]),
        ("--g_lr 0", ["--g_lr", "above 0"]),
        ("--g_lr nan", ["--g_lr", "'nan'"]),
        ("--g_lr inf", ["--g_lr", "finite"]),
        ("--lr x", ["--lr", "'x'"]),
        ("--beta1 1", ["--beta1", "not including, 1"]),
        ("--beta2 -0.1", ["--beta2"]),
        ("--ema_decay 1", ["--ema_decay"]),
        ("--dropout 1.5", ["--dropout"]),
        ("--lambda_gp -1", ["--lambda_gp"]),
        ("--inst_noise_sigma -1", ["--inst_noise_sigma"]),
        ("--manual_seed -1", ["--manual_seed"]),
        (f"--manual_seed {2**63}", ["--manual_seed", "2^63"]),
        ("--adv_loss lsgan", ["--adv_loss", "'lsgan'", "hinge, dcgan, wgan_gp, gan"]),
        ("--model biggan", ["--model", "'biggan'", "sagan"]),
        ("--dataset hdf5", ["--dataset", "'hdf5'", "digits, mnist, fashion-mnist, cifar10, folder, imagenet, fake"]),
        ("--dataset lfw", ["--dataset", "'lfw'"]),
        ("--dataset lsun", ["--dataset", "'lsun'"]),
        ("--state_dict_or_model model", ["--state_dict_or_model", "'model'", "code"]),
        ("--dont_shuffle maybe", ["--dont_shuffle", "true or false"]),
        ("--device tpu", ["--device", "'tpu'", "gpu:NUMBER"]),
        ("--cuda --disable_cuda", ["--cuda and --disable_cuda"]),
        ("--device cpu --cuda", ["--device and --cuda"]),
        ("--device gpu:1 --gpu_id 10", ["--device and --gpu_id"]),
        ("--disable_cuda --gpu_id 0", ["--disable_cuda and --gpu_id"]),
        ("--cuda --ngpu 0", ["--cuda and --ngpu"]),
        ("--name ../up", ["--name", "plain name"]),
        ("--name ..", ["--name"]),
        ("--name a/b", ["--name"]),
        ("--name 'a\nb'", ["--name"]),
        (f"--name {'x' * 300}", ["--name"]),
        ("--model_weights_dir /tmp", ["--model_weights_dir"]),
        ("--sample_images_dir ''", ["--sample_images_dir"]),
        ("--classes 20,10", ["--classes", "10,20", "random:"]),
        ("--classes 5,5", ["--classes"]),
        ("--classes a,,b", ["--classes"]),
        ("--classes a,b,a", ["--classes"]),
        ("--classes random:0:1", ["--classes"]),
        ("--classes random:5", ["--classes"]),
        ("--classes 0,5 --num_classes 4", ["--num_classes 4", "--classes 0,5", "leave --num_classes out"]),
        ("--recipe classes.yaml --data_path train", ["classes.yaml", "num_classes 9", "classes a,b"]),
        ("--dataroot train --num_classes 20", ["--num_classes 20", "--classes 10,20", "none"]),
        ("--recipe sagan-imagnet", ["--recipe sagan-imagnet", "did you mean sagan-imagenet?", "acgan-mlp"]),
        (f"--recipe {'x' * 5000}", ["--recipe"]),
        ("--recipe train", ["--recipe train"]),
        ("--data_path nowhere", ["--data_path nowhere", "does not exist"]),
        (f"--data_path {'x/' * 3000}", ["--data_path"]),
        ("--dataroot nowhere", ["--dataroot nowhere"]),
        ("--recipe acgan-imagenet", ["--dataset imagenet (from the recipe acgan-imagenet) needs --data_path"]),
        ("--dataset folder", ["--data_path", "folder"]),
        ("--dataset digits --data_path train", ["--data_path train", "digits"]),
        ("--dataset digits --exif", ["--exif", "digits", "leave it out"]),
        ("--dataset digits --fast_decode", ["--fast_decode", "digits", "leave it out"]),
        ("--dataset digits --dont_resize --resize_filter box", ["--resize_filter", "--dont_resize"]),
        ("--dataset digits --resize_filter sinc", ["--resize_filter: 'sinc'", "lanczos"]),
        ("--pretrained_model nowhere", ["--pretrained_model nowhere"]),
        ("--netD netD_epoch_5.pth", ["--netD netD_epoch_5.pth", "--netG"]),
        ("--netG netG_epoch_5.pth --netD w.pdparams", ["--netD w.pdparams"]),
        ("--eval_step 5 --metrics floor,fid", ["--metrics floor,fid", "--eval_step", "put another metric first"]),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence(command, found):
    Path("classes.yaml").write_text("dataset: folder\nclasses: a,b\nnum_classes: 9\n")
    argv = shlex.split(command)
    with pytest.raises(UserError) as caught:
        line = CommandLine(argv)
        with line.naming_origins():
            line.parameters()
    message = str(caught.value)
    assert all(text in message for text in found), message
    assert "\n" not in message.replace("a\nb", "")
    assert "stray" not in command or "did you mean --beta2?" not in message


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if "int" in str(field.type)])
def test_a_too_large_number_is_refused_with_the_valid_range(name):
    """The smallest and the largest number of that range are accepted."""
    rule = FIELDS[name].metadata["valid"]
    with pytest.raises(UserError, match=re.escape(rule.phrase)):
        CommandLine([f"--{name}", str(10**30)])
    low, high = re.fullmatch(r"a whole number from (\d+) to (\S+( - 1)?)", rule.phrase).groups()[:2]
    low, high = int(low), 2**63 - 1 if high == "2^63 - 1" else int(high)
    assert rule.accepts(low) and rule.accepts(high) and not rule.accepts(low - 1) and not rule.accepts(high + 1)


def test_a_refusal_tells_the_origin_of_a_value_and_uses_the_names_of_the_command():
    for name in ("daisy", "iris"):
        Path("train", name).mkdir()
        Image.new("RGB", (16, 16)).save(Path("train", name, "1.png"))
    for command, refused in (
        ("--dataset imagenet --dataroot train", "--classes 10,20 (from the recipe acgan-imagenet-torch) goes beyond"),
        ("--dataroot train --classes none --num_classes 10", "--num_classes 10 does not fit --dataroot train, which"),
    ):
        line = CommandLine(shlex.split(command))
        with pytest.raises(UserError, match=f"^{re.escape(refused)} "), line.naming_origins():
            load_dataset(line.parameters())


@pytest.mark.parametrize(
    ("command", "message", "explained"),
    [
        ("--data_path train", "--batch_size 64 in each", "--batch_size 64 (from the recipe sagan-imagenet) in each"),
        ("--data_path train --batch_size 64", "--batch_size 64 in each", "--batch_size 64 in each"),
        ("--data_path train --batchSize 64", "--batch_size 64 in each", "--batchSize 64 in each"),
        ("--data_path train", "--imsize 128 is large", "--imsize 128 is large"),  # a default
        ("--data_path train", "--batch_size 640 is large", "--batch_size 640 is large"),
        ("--resume runs/one", "--batch_size 7: no", "--batch_size 7 (from the run {run}): no"),
        ("--dataroot a --data_path train", "--data_path train: no", "--data_path train: no"),
        ("--data_path train --check_path runs", "--save_path runs: no", "--check_path runs: no"),
    ],
)
def test_the_origin_of_a_value_follows_it(command, message, explained, files):
    run = files / "runs" / "one"
    run.mkdir(parents=True)
    (run / RUN_FILE).write_text("recipe: mine\ndataset: fake\nbatch_size: 7\n")
    line = CommandLine(shlex.split(command))
    line.parameters()
    assert line.explained(message) == explained.format(run=run)


@pytest.mark.parametrize("program", ["test", "generate", "export", "gallery", "demo"])
def test_a_path_without_its_option_is_refused_with_the_option_to_give(files, program):
    (files / "my run").mkdir()
    for path, word in (("my run", "'my run'"), ("w.pdparams", "w.pdparams")):
        with pytest.raises(UserError) as caught:
            CommandLine(["--manual_seed", "3", path], program)
        assert f"not the value of one; did you mean --pretrained_model {word}?; --help" in str(caught.value)
    with pytest.raises(UserError, match=r"'w\.pdparams' is not an option and not the value of one: leave it out"):
        CommandLine(["--pretrained_model", "my run", "w.pdparams"], program)
    with pytest.raises(UserError, match="'nowhere' is not an option and not the value of one: leave it out"):
        CommandLine(["--manual_seed", "3", "nowhere"], program)


def test_a_refusal_does_not_name_num_classes_if_the_weights_set_it(files):
    base = dataclasses.asdict(parse("--recipe acgan-mnist --num_classes 9"))
    message = refusal("--pretrained_model w.pdparams --classes 0,4", "test", base)
    assert "--num_classes" not in message and "9 classes" in message and "--classes 0,4" in message
    assert "--labels" in message


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("", ["--pretrained_model", "--check_path"]),
        ("--num_samples 5", ["--pretrained_model", "--check_path"]),
        ("--pretrained_model w.pdparams --check_path checkpoints/class-10-20", ["--pretrained_model", "--check_path"]),
        ("--pretrained_model nowhere", ["--pretrained_model nowhere"]),
        ("--pretrained_model w.pdparams --test_data_path nowhere", ["--test_data_path nowhere"]),
        ("--check_path checkpoints/class-10-20 --which_epoch 5", ["G_5.pdparams", "--which_epoch"]),
        ("--check_path nowhere", ["--check_path nowhere"]),
        ("--samples w.pdparams --pretrained_model w.pdparams", ["one thing", "--samples"]),
        ("--samples w.pdparams --dataset digits --test_data_path .", ["--test_data_path .", "its own images"]),
        ("--samples w.pdparams --dataset digits --half_precision", ["--half_precision", "--dataset digits"]),
        ("--samples w.pdparams --dataset mnist --inception_weights .", ["--inception_weights", "--dataset mnist"]),
        ("--samples w.pdparams --dataset mnist --metrics fid_64", ["fid_64", "--dataset mnist"]),
        ("--samples w.pdparams --num_samples 5", ["--samples measures existing images", "--num_samples"]),
        ("--samples w.pdparams --labels 3", ["--samples measures existing images", "--labels"]),
        ("--pretrained_model w.pdparams --labels daisy,3,daisy", ["--labels", "'daisy,3,daisy'", "each once"]),
        ("--pretrained_model w.pdparams --labels ,3", ["--labels", "daisy,3"]),
        ("--pretrained_model w.pdparams --labels ''", ["--labels"]),
        ("--samples w.pdparams --truncation 1", ["--samples measures existing images", "--truncation"]),
        ("--samples w.pdparams --standing_batches 5", ["--samples measures existing images", "--standing_batches"]),
        ("--samples w.pdparams --use_ema false", ["--samples measures existing images", "--use_ema"]),
        ("--samples w.pdparams --samples_npz out.npz", ["--samples measures existing images", "--samples_npz"]),
    ],
)
def test_a_wrong_test_is_refused_in_one_sentence(command, found):
    message = refusal(command, "test")
    assert all(text in message for text in found), message


@pytest.mark.parametrize(
    ("place", "command"),
    [
        (".", "--data_path ."),
        (".", "--data_path . --dataset folder --save_path ./runs"),
        (".", "--dataset folder --dataroot ../train --outf=runs/deep"),
        (".", "--data_path . --save_path ."),
        (".", "--data_path . --save_path {absolute}/train"),
        (".", "--data_path ../link"),
        (".", "--data_path . --save_path ../link/runs"),
        (".", "--data_path . --save_path outside"),  # a link to another folder still counts as a class folder
        (".", "--data_path . --resume auto"),
        (".", "--data_path ../val --test_data_path . --eval_step 5"),
        ("..", "--data_path train --save_path link/runs"),
        ("..", "--data_path link --save_path train/a"),
    ],
)
def test_a_run_does_not_start_inside_its_data(place, command, files, monkeypatch):
    (files / "link").symlink_to("train")
    (files / "elsewhere").mkdir()
    (files / "train" / "outside").symlink_to("../elsewhere")
    monkeypatch.chdir(files / "train" / place)
    before = sorted(files.rglob("*"))
    message = refusal(command.replace("{absolute}", str(files)))
    assert re.search("--(save_path|outf) ", message) and "outside" in message
    assert re.search("--((test_)?data_path|dataroot) ", message)
    assert sorted(files.rglob("*")) == before


@pytest.mark.parametrize(
    ("place", "command"),
    [
        (".", "--data_path train"),
        (".", "--data_path train --save_path ."),
        (".", "--data_path train --save_path train-runs"),
        ("train", "--data_path . --save_path .."),
        ("train", "--data_path . --save_path ../runs"),
        ("train", "--data_path ../val"),
        ("cifar", "--dataset cifar10 --data_path ."),  # its folders are not classes
    ],
)
def test_a_run_starts_beside_or_above_its_data(place, command, files, monkeypatch):
    monkeypatch.chdir(files / place)
    parse(command)


def test_a_run_inside_its_data_goes_on(files, monkeypatch):
    monkeypatch.chdir(files / "train")
    folder = files / "train" / "sagan_models" / "sagan-imagenet-1"
    folder.mkdir(parents=True)
    (folder / RUN_FILE).write_text(parse("--data_path . --save_path ..").to_yaml())
    for resume in ("auto", "sagan_models/sagan-imagenet-1"):
        assert parse(f"--data_path . --resume {resume}").name == "sagan-imagenet-1"


@pytest.mark.parametrize(
    "options",
    [
        "--pretrained_model ../w.pdparams --test_path report",
        "--pretrained_model ../w.pdparams --samples_dir ./samples",
        "--samples ../w.pdparams",
        "--samples ../w.pdparams --save_path reports",
    ],
)
def test_a_test_does_not_write_into_its_data(options, files, monkeypatch):
    monkeypatch.chdir(files / "val")
    message = refusal(f"{options} --test_data_path . --dataset folder", "test")
    assert "lies inside --test_data_path" in message
    message = refusal(f"{options} --data_path . --real_split train --dataset folder", "test")
    assert "lies inside --data_path" in message


def test_a_test_writes_beside_its_data(files, monkeypatch):
    monkeypatch.chdir(files / "val")
    data = "--test_data_path . --dataset folder"
    parse(f"--pretrained_model ../w.pdparams --samples_dir ../s --samples_npz a.npz {data}", "test")
    parse(f"--samples ../w.pdparams --test_path ../report {data}", "test")


def test_a_test_does_not_need_the_training_data():
    base = dataclasses.asdict(parse("--data_path train"))
    parse("--pretrained_model w.pdparams", "test", base | {"data_path": "/on/another/machine"})

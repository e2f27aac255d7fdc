"""Fixtures that all test files share."""

import default_signals  # noqa: F401, I001, before runtime
import runtime  # noqa: F401, before paddle: it sets the threads

import dataclasses
import os

import pytest
from small_models import MODELS

from parameters import Parameters


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory):
    """A home folder for the tests, so that they do not use the user's caches."""
    before, os.environ["HOME"] = os.environ.get("HOME", ""), str(tmp_path_factory.mktemp("home"))
    yield
    os.environ["HOME"] = before


@pytest.fixture
def make_parameters(tmp_path):
    """Parameters of a small training: `make_parameters(model, **changes)`."""

    def make(model="acgan-digits", **changes):
        common = {
            "recipe": model, "model": model, "dataset": "fake", "num_classes": 5, "z_dim": 20, "adv_loss": "dcgan",
            "beta1": 0.5, "beta2": 0.999, "d_lr": 2e-4, "g_lr": 2e-4, "batch_size": 4, "total_step": 4, "log_step": 1,
            "sample_step": 2, "model_save_step": 2, "device": "cpu", "save_path": str(tmp_path / "runs"),
        }  # fmt: skip
        return dataclasses.replace(Parameters(), **common | MODELS[model] | changes)

    return make


@pytest.fixture
def files(tmp_path, monkeypatch):
    """An empty working folder with the files that the commands of tests name."""
    monkeypatch.chdir(tmp_path)
    for folder in ("train", "val", "cifar", "checkpoints/class-10-20"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("w.pdparams", "netG_epoch_5.pth", "netD_epoch_5.pth", "checkpoints/class-10-20/G_499.pdparams"):
        (tmp_path / file).touch()
    return tmp_path

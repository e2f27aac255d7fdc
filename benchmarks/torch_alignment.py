"""Compares the PyTorch networks of the benchmarks with the fixtures of `alignment/`.

    python benchmarks/torch_alignment.py tests/fixtures/sagan128.json tests/fixtures/acgan_*.json

Run it in an environment with PyTorch and NumPy. For each fixture it compares the evaluation forward, and the losses and
gradients of the first step. It prints the largest relative difference, which must be at most 1e-7 (1e-4 if the
reference is in float32), and exits with 1 if one is larger. Fixtures of networks that the benchmarks lack are named.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "alignment"))
import draw
from torch_networks import Training, networks

FLOAT64, FLOAT32 = 1e-7, 1e-4
FLOOR = 1e-5  # a figure below this share of the largest in its group is compared with that share
KINDS = {"mnist": "acgan-mnist", "cifar10": "acgan-cifar10", "imagenet": "acgan-imagenet-torch"}
LOSSES = {
    "d_loss_real": "real",
    "d_loss_fake": "fake",
    "gradient_penalty": "penalty",
    "g_loss": "g",
    "d_adv_real": "real",
    "d_aux_real": "real_class",
    "d_adv_fake": "fake",
    "d_aux_fake": "fake_class",
    "g_adv": "g",
    "g_aux": "g_class",
}


def main():
    torch.set_default_dtype(torch.float64)
    failed = False
    for path in sys.argv[1:]:
        fixture = json.loads(Path(path).read_text())
        model = model_of(fixture)
        if not model:
            print(f"{path}: its network is not in the benchmarks")
            continue
        differences = [(np.nan_to_num(size, nan=np.inf), name) for size, name in Check(fixture, model).differences()]
        worst, figure = max(differences)
        allowed = FLOAT64 if "protocol" in fixture or fixture.get("precision") == "float64" else FLOAT32
        failed |= not worst <= allowed
        print(f"{path}: largest relative difference {worst:.1e} ({figure}), at most {allowed:.0e}")
    return int(failed)


def model_of(fixture):
    """The --model of a fixture's networks, or None if the benchmarks lack them."""
    if fixture.get("protocol") == "sagan":
        return None if "network" in fixture else "sagan"
    if fixture.get("protocol") == "acgan":
        return KINDS.get(fixture["kind"])
    return "acgan-imagenet" if "tconv7.0.weight" in fixture.get("G_state", {}) else None


class Check:
    """The networks of a fixture with its drawn weights, and their differences from its figures."""

    def __init__(self, fixture, model):
        self.fixture, self.seed, self.batch = fixture, fixture["seed"], fixture["batch"]
        widths = {} if model == "sagan" else {f"{role.lower()}_widths": widths_of(fixture, role) for role in "GD"}
        width, optimizer = fixture.get("conv_dim"), fixture.get("optimizer", {})
        self.channels, lr = fixture.get("channels", 3), optimizer.get("lr")
        p = {
            "model": model,
            "z_dim": fixture["z_dim"],
            "num_classes": fixture["classes"],
            "imsize": fixture["image_size"],
            "channels": self.channels,
            "g_conv_dim": width,
            "d_conv_dim": width,
            "attention_size": 32,
            "dropout": 0.0,
            "adv_loss": fixture.get("adv_loss", "dcgan"),
            "lambda_gp": 10.0,
            "class_loss_weight": 1.0,
            "d_lr": optimizer.get("d_lr", lr or 1.0),
            "g_lr": optimizer.get("g_lr", lr or 1.0),
            **dict(zip(("beta1", "beta2"), optimizer.get("betas", (0.0, 0.9)), strict=True)),
        }
        self.training = Training(p, *networks(p, **widths))
        for role in "GD":
            self.load(role)

    def load(self, role):
        """Draw the weights of a network by the fixture's names and shapes, PyTorch's or Paddle's, and load them."""
        shapes = self.fixture[f"{role}_state"]
        drawn = {name: draw.weight(f"{role}.{name}", tuple(shape), self.seed) for name, shape in shapes.items()}
        draw.settle(drawn)
        state = {}
        for name, value in drawn.items():
            if "protocol" not in self.fixture:
                value = value.T if value.ndim == 2 else value
                name = name.replace("_mean", "running_mean").replace("_variance", "running_var")
            state[name] = torch.from_numpy(np.ascontiguousarray(value))
        missing, unexpected = getattr(self.training, role).load_state_dict(state, strict=False)
        if unexpected or [name for name in missing if not name.endswith("num_batches_tracked")]:
            sys.exit(f"{role}: the fixture lacks {missing}; the network lacks {unexpected}")

    def differences(self):
        """Yield (relative difference, name) of each figure."""
        yield from self.forward()
        if "trajectory" not in self.fixture:
            return
        G, D = self.training.G.train(), self.training.D.train()
        real = self.labels("real")
        fake = real if self.fixture["protocol"] == "sagan" else self.labels("d")
        images = draw.images(0, self.batch, self.channels, self.fixture["image_size"], self.seed)
        alpha = draw.rng("alpha/0", self.seed).uniform(size=(self.batch, 1, 1, 1))
        losses = self.training.update_d(torch.from_numpy(images), real, self.noise("d"), fake, torch.from_numpy(alpha))
        yield from compare_all(self.fixture["first_d_grads"], gradients(D))
        losses |= self.training.update_g(self.noise("g"), self.labels("g"))
        yield from compare_all(self.fixture["first_g_grads"], gradients(G))
        losses = {name: value.item() for name, value in losses.items()}
        losses["penalty"] = losses.get("penalty", 0.0) / 10
        references = self.fixture["trajectory"][0]
        yield from compare_all(references, {name: losses[LOSSES[name]] for name in references})

    def forward(self):
        G, D = self.training.G.eval(), self.training.D.eval()
        with torch.no_grad():
            labels = self.labels("g")
            images = G(self.noise("g"), labels)
            logits, classes = D(images, labels)
        found = {"images": images, "d_out": logits, "validity_logits": logits, "class_logits": classes}
        references = dict(self.fixture["eval_forward"])
        if "validity" in references:  # near 0, so compare logarithms
            references["validity"] = list(np.log(references["validity"]))
            found |= {"validity": F.logsigmoid(logits), "class_probabilities": torch.softmax(classes, 1)}
        for name, reference in references.items():
            yield compare(reference, found[name].numpy()), name

    def noise(self, role):
        return torch.from_numpy(draw.noise(0, role, self.batch, self.fixture["z_dim"], self.seed))

    def labels(self, role):
        return torch.from_numpy(draw.labels(0, role, self.batch, self.fixture["classes"], self.seed))


def widths_of(fixture, role):
    """The widths in a fixture's shapes, as `torch_networks.networks` takes them."""
    shapes = fixture[f"{role}_state"]
    convolutions = [shape for shape in shapes.values() if len(shape) == 4]
    if role == "G" and "l1.0.weight" in shapes:
        return [shapes["conv_blocks.0.weight"][0], *(shape[0] for shape in convolutions)]
    return [shape[0] for shape in convolutions]  # of transposed convolutions: their inputs


def gradients(network):
    return {name: weight.grad.numpy() for name, weight in network.named_parameters() if weight.grad is not None}


def compare_all(references, found):
    """Differences of a group. The largest reference gives the smallest size to divide by."""
    sizes = [abs(figure["norm"]) if isinstance(figure, dict) else abs(figure) for figure in references.values()]
    for name, reference in references.items():
        yield compare(reference, found[name], FLOOR * max(sizes)), name


def compare(reference, found, floor=0.0):
    """The largest difference of an array from its digest, a list or a number, relative as in `alignment/compare.py`."""
    if isinstance(reference, dict):
        digest = draw.digest(found)
        if digest["shape"] != reference["shape"]:
            return np.inf
        norm = max(reference["norm"], floor)
        scales = {"norm": norm, "mean": norm / found.size**0.5, "projection": norm / found.size**0.5}
        return max(abs(digest[name] - reference[name]) / (scale or 1) for name, scale in scales.items())
    reference = np.atleast_1d(reference)
    scale = max(np.sqrt(np.mean(reference**2)), floor) or 1
    return np.abs(np.ravel(found) - reference).max() / scale


if __name__ == "__main__":
    sys.exit(main())

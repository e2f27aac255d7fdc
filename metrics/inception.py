"""The Inception-v3 that FID, KID and the Inception Score are defined with: TensorFlow's graph of 5 December 2015.

Network: Szegedy et al., *Rethinking the Inception Architecture for Computer Vision* (CVPR 2016), table 1. The resize,
the poolings and the 1008 logits are those of the graph. Layers have PyTorch's names, so each published weight has the
same name here.
"""

from functools import partial

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

import runtime
from inference.predictor import compiled
from metrics.inception_weights import FILE, published_name
from utils import UserError

# The features. POOLED are means over space: after the first max pooling, after the second, before the last three blocks
# and after them. CLASSES are logits. "logits_unbiased" are without the bias; the Inception Score is defined with them.
POOLED = ("64", "192", "768", "2048")
CLASSES = ("logits_unbiased", "logits")

AVERAGE = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, exclusive=True)
MAXIMUM = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
HALVE = partial(F.max_pool2d, kernel_size=3, stride=2)


class Unit(nn.Layer):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, width, out, kernel, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2D(width, out, kernel, stride, padding, bias_attr=False)
        self.bn = nn.BatchNorm2D(out, epsilon=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Layer):
    """Branches side by side, joined over channels.

    A branch is a list of steps. A step is a pooling, a unit, or a tuple of two units with the same input. A unit is
    (name, width, kernel, stride), with stride 1 by default. At stride 1 padding keeps the size. At stride 2 there is no
    padding.
    """

    def __init__(self, width, branches):
        super().__init__()
        self.branches = branches
        for branch in branches:
            before = width
            for step in branch:
                if not callable(step):
                    for unit in _units(step):
                        self.add_sublayer(unit[0], _padded_unit(before, *unit[1:]))
                    before = unit[1]

    def forward(self, x):
        outputs = []
        for branch in self.branches:
            y = [x]
            for step in branch:
                y = [step(y[0])] if callable(step) else [getattr(self, unit[0])(y[0]) for unit in _units(step)]
            outputs += y
        return paddle.concat(outputs, axis=1)


def _units(step):
    return [step] if isinstance(step[0], str) else step


def _padded_unit(width, out, kernel, stride=1):
    rows, columns = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    return Unit(width, out, kernel, stride, padding=(rows // 2, columns // 2) if stride == 1 else 0)


def _mixed_5(width, pool_width):
    return Mixed(
        width,
        [
            [("branch1x1", 64, 1)],
            [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
            [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
            [AVERAGE, ("branch_pool", pool_width, 1)],
        ],
    )


def _mixed_6a():
    return Mixed(
        288,
        [
            [("branch3x3", 384, 3, 2)],
            [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)],
            [HALVE],
        ],
    )


def _mixed_6(middle):
    return Mixed(
        768,
        [
            [("branch1x1", 192, 1)],
            [("branch7x7_1", middle, 1), ("branch7x7_2", middle, (1, 7)), ("branch7x7_3", 192, (7, 1))],
            [
                ("branch7x7dbl_1", middle, 1),
                ("branch7x7dbl_2", middle, (7, 1)),
                ("branch7x7dbl_3", middle, (1, 7)),
                ("branch7x7dbl_4", middle, (7, 1)),
                ("branch7x7dbl_5", 192, (1, 7)),
            ],
            [AVERAGE, ("branch_pool", 192, 1)],
        ],
    )


def _mixed_7a():
    return Mixed(
        768,
        [
            [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)],
            [
                ("branch7x7x3_1", 192, 1),
                ("branch7x7x3_2", 192, (1, 7)),
                ("branch7x7x3_3", 192, (7, 1)),
                ("branch7x7x3_4", 192, 3, 2),
            ],
            [HALVE],
        ],
    )


def _mixed_7(width, pooling):
    return Mixed(
        width,
        [
            [("branch1x1", 320, 1)],
            [("branch3x3_1", 384, 1), (("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1)))],
            [
                ("branch3x3dbl_1", 448, 1),
                ("branch3x3dbl_2", 384, 3),
                (("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))),
            ],
            [pooling, ("branch_pool", 192, 1)],
        ],
    )


class Network(nn.Layer):
    """Images float32 [N, 3, 299, 299] in [-1, 1) to the pooled features `taps`, each [N, width]."""

    def __init__(self, taps):
        super().__init__()
        self.taps = taps
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Unit(32, 32, 3)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3)
        self.Mixed_5b = _mixed_5(192, 32)
        self.Mixed_5c = _mixed_5(256, 64)
        self.Mixed_5d = _mixed_5(288, 64)
        self.Mixed_6a = _mixed_6a()
        self.Mixed_6b = _mixed_6(128)
        self.Mixed_6c = _mixed_6(160)
        self.Mixed_6d = _mixed_6(160)
        self.Mixed_6e = _mixed_6(192)
        self.Mixed_7a = _mixed_7a()
        self.Mixed_7b = _mixed_7(1280, AVERAGE)
        self.Mixed_7c = _mixed_7(2048, MAXIMUM)  # an average in other Inception networks
        self.eval()

    def forward(self, x):
        found = {}
        x = HALVE(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        found["64"] = _space_mean(x)
        x = HALVE(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        found["192"] = _space_mean(x)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        found["768"] = _space_mean(x)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        found["2048"] = _space_mean(x)
        return [found[tap] for tap in self.taps]


def _space_mean(x):
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


class Inception:
    """The feature extractor, from uint8 images of any size to features.

    On a CPU the network runs in `paddle.inference` with oneDNN. That is two to three times as fast as eager execution
    and equal to 1e-5. If it fails, and on a GPU, the network runs eagerly.

    Args:
        weights: NumPy arrays by PyTorch's names and shapes, as `load_weights` reads them.
        taps: names from POOLED and CLASSES.
        eager: run eagerly on a CPU too.
        half: on a GPU, compute in float16 where that is safe. Features then equal those in float32 to about 1e-2.

    Raises:
        UserError: an unknown tap, weights of another network, or logits from weights that have none.
    """

    def __init__(self, weights, taps=("2048",), eager=False, half=False):
        if half and paddle.get_device() == "cpu":
            raise UserError("--half_precision is for GPUs, but this runs on the CPU: leave --half_precision out")
        unknown = set(taps) - {*POOLED, *CLASSES}
        if unknown:
            raise UserError(f"Inception has no features {sorted(unknown)}; it has {', '.join(POOLED + CLASSES)}")
        self.taps = tuple(taps)
        self._reads_classes = not set(taps).isdisjoint(CLASSES)
        self._network = Network([tap for tap in POOLED if tap in taps or (tap == "2048" and self._reads_classes)])
        names = {name: published_name(name) for name in self._network.state_dict()}
        shapes = {names[name]: value.shape for name, value in self._network.state_dict().items()}
        if self._reads_classes or "fc.weight" in weights:
            shapes |= {"fc.weight": [1008, 2048], "fc.bias": [1008]}
        weights = _checked(weights, shapes)
        self._network.set_state_dict({name: weights[published] for name, published in names.items()})
        self._head = weights.get("fc.weight"), weights.get("fc.bias")
        self._half = half
        self._predictor = None
        if not eager and paddle.get_device() == "cpu":
            inputs = [([None, 3, 299, 299], "float32")]
            self._predictor = compiled("Inception", lambda: self._network, inputs, runtime.threads())

    def features(self, images):
        """The features of uint8 images [N, 3, H, W]: {tap: float32 [N, width]}."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3 or not images.size:
            raise UserError(f"Inception needs uint8 images [N, 3, H, W], not {images.dtype} {list(images.shape)}")
        resized = resize(images)
        outputs = self._predictor(resized.numpy()) if self._predictor else self._run_eagerly(resized)
        found = dict(zip(self._network.taps, outputs, strict=True))
        if self._reads_classes:
            weight, bias = self._head
            with np.errstate(invalid="ignore"):  # the metrics refuse a NaN
                found["logits_unbiased"] = found["2048"] @ weight.T
            found["logits"] = found["logits_unbiased"] + bias
        return {tap: found[tap] for tap in self.taps}

    @paddle.no_grad()
    def _run_eagerly(self, images):
        with paddle.amp.auto_cast(enable=self._half, level="O1"):
            return [output.astype("float32").numpy() for output in self._network(images)]


def resize(images):
    """Images uint8 [N, C, H, W] in the graph's size and range: float32 [N, C, 299, 299] in [-1, 1), a paddle.Tensor.

    It is TensorFlow 1's bilinear resize: pixel i of the output lies at i·H/299 of the input. Corners are not aligned,
    and there is no half-pixel shift and no smoothing (Paddle's align_mode 1).
    """
    images = (paddle.to_tensor(images).astype("float32") - 128) / 128
    return F.interpolate(images, [299, 299], mode="bilinear", align_corners=False, align_mode=1)


def _checked(weights, shapes):
    """The weights named in `shapes`, as float32. Raises UserError if one is missing or has another shape or type."""
    missing = [name for name in shapes if name not in weights]
    if missing == ["fc.weight", "fc.bias"]:
        raise UserError(
            "--inception_weights: these weights have no 1008 class logits (PaddleGAN's InceptionV3.pdparams has none), "
            f"but the chosen metrics need them; give {FILE}, or leave the metrics is and accuracy out"
        )
    if missing:
        raise UserError(
            f"--inception_weights: this is not the Inception-v3 of 2015: {len(missing)} of its {len(shapes)} arrays "
            f"are missing, such as {missing[0]}"
        )
    checked = {}
    for name, shape in shapes.items():
        value = np.asarray(weights[name])
        if list(value.shape) != list(shape) or value.dtype.kind != "f":
            raise UserError(
                f"--inception_weights: {name} is {value.dtype} {list(value.shape)}, not float {list(shape)} as in the "
                "Inception-v3 of 2015 that FID is defined with (torchvision's is another)"
            )
        if not np.isfinite(value).all():
            raise UserError(f"--inception_weights: {name} holds a NaN or an infinity")
        checked[name] = value.astype(np.float32)
    return checked

"""Mixed precision on a GPU (Micikevicius et al., *Mixed Precision Training*, ICLR 2018), by Paddle's own means."""

import numpy as np
import paddle

from utils import UserError

DTYPES = {"bf16": "bfloat16", "fp16": "float16"}
# The scaler's state that changes in a training.
SCALER_STATE = ("scale", "incr_count", "decr_count")


class Precision:
    """How forwards are computed and gradients scaled: `amp` is "bf16", "fp16" or None, which is as the weights are.

    Convolutions and matrix products are computed in half precision from float32 weights. Spectral norm's products of a
    matrix and a vector are not of those operations, nor is what a caller computes of the results. float16 alone needs
    its loss scaled up; a step whose gradients overflow is left out, on all processes since they share them.
    Raises UserError for a device that has no such precision.
    """

    def __init__(self, amp):
        self.dtype = DTYPES.get(amp)
        if amp and paddle.get_device() == "cpu":
            raise UserError(
                f"--amp {amp} needs a GPU: Paddle has no {self.dtype} convolution for the CPU; give --amp none"
            )
        if amp and not getattr(paddle.amp, f"is_{self.dtype}_supported")():
            raise UserError(f"--amp {amp} is not for this GPU, which lacks {self.dtype}: give the other or --amp none")
        self.scaler = paddle.amp.GradScaler() if amp == "fp16" else None

    def generate(self, G, z, labels):
        """Images of the generator `G`, not in half precision."""
        if not self.dtype:
            return G(z, labels)
        with self._autocast():
            images = G(z, labels)
        return images.astype(z.dtype)

    def judge(self, D, images, labels):
        """The two logits (the second may be None) of the discriminator `D`, not in half precision."""
        if not self.dtype:
            return D(images, labels)
        with self._autocast():
            logits, classes = D(images, labels)
        return logits.astype(images.dtype), None if classes is None else classes.astype(images.dtype)

    def _autocast(self):
        return paddle.amp.auto_cast(dtype=self.dtype, custom_white_list={"conv2d_transpose"})

    def backward(self, loss):
        """Add the gradients of `loss`, scaled where there is a scaler."""
        (self.scaler.scale(loss) if self.scaler else loss).backward()

    def step(self, optimizer):
        """One step of `optimizer` on the gradients that are there, unless scaled ones have overflowed."""
        if not self.scaler:
            optimizer.step()
            return
        self.scaler.step(optimizer)
        self.scaler.update()

    def state(self):
        """The scaler's state, NumPy arrays [1] by name; nothing where there is none."""
        state = self.scaler.state_dict() if self.scaler else {}
        return {name: np.asarray(state[name], "float32").reshape(1) for name in SCALER_STATE if state}

    def load(self, arrays):
        """Go on from `arrays`, as `state` gives them."""
        if self.scaler and arrays:
            scale, *counts = (arrays[name] for name in SCALER_STATE)
            counts = dict(zip(SCALER_STATE[1:], (int(count[0]) for count in counts), strict=True))
            self.scaler.load_state_dict(self.scaler.state_dict() | {"scale": scale} | counts)

"""Mixed precision on a GPU (Micikevicius et al., *Mixed Precision Training*, ICLR 2018), with `paddle.amp`."""

import numpy as np
import paddle

from utils import UserError

DTYPES = {"bf16": "bfloat16", "fp16": "float16"}
# The entries of the gradient scaler's state that training changes.
SCALER_STATE = ("scale", "incr_count", "decr_count")


class Precision:
    """Runs forward passes in a chosen precision and scales gradients.

    `amp` is "bf16", "fp16", or None for the precision of the weights. Convolutions and matrix products run in half
    precision; the weights stay float32. Spectral norm's products of a matrix and a vector, and the losses, stay in
    float32. float16 needs a scaled loss. If the gradients of a step overflow, the step is skipped. All processes skip
    it, because they have the same summed gradients. Raises UserError if the device does not support the precision.
    """

    def __init__(self, amp):
        self.dtype = DTYPES.get(amp)
        if amp and paddle.get_device() == "cpu":
            raise UserError(
                f"--amp {amp} needs a GPU: Paddle has no {self.dtype} convolution for the CPU; give --amp none"
            )
        if amp and not getattr(paddle.amp, f"is_{self.dtype}_supported")():
            raise UserError(
                f"--amp {amp}: this GPU does not support {self.dtype}; give another precision or --amp none"
            )
        self.scaler = paddle.amp.GradScaler() if amp == "fp16" else None

    def generate(self, G, z, labels):
        """The images of the generator `G`, in the dtype of `z`."""
        if not self.dtype:
            return G(z, labels)
        with self._autocast():
            images = G(z, labels)
        return images.astype(z.dtype)

    def judge(self, D, images, labels):
        """D's outputs: (adversarial logits, input of the class loss, or None), in the dtype of `images`."""
        if not self.dtype:
            return D(images, labels)
        with self._autocast():
            logits, classes = D(images, labels)
        return logits.astype(images.dtype), _as_dtype(classes, images.dtype)

    def _autocast(self):
        return paddle.amp.auto_cast(dtype=self.dtype, custom_white_list={"conv2d_transpose"})

    def backward(self, loss):
        """Add the gradients of `loss` to the weights' gradients, scaled if there is a scaler."""
        (self.scaler.scale(loss) if self.scaler else loss).backward()

    def step(self, optimizer):
        """Do one step of `optimizer` with the weights' gradients. If scaled gradients overflow, skip the step."""
        if not self.scaler:
            optimizer.step()
            return
        self.scaler.step(optimizer)
        self.scaler.update()

    def state(self):
        """{name: NumPy array [1]} of the scaler's state; empty without a scaler."""
        state = self.scaler.state_dict() if self.scaler else {}
        return {name: np.asarray(state[name], "float32").reshape(1) for name in SCALER_STATE if state}

    def load(self, arrays):
        """Set the scaler's state to `arrays`, as `state` returns them."""
        if self.scaler and arrays:
            scale, *counts = (arrays[name] for name in SCALER_STATE)
            counts = dict(zip(SCALER_STATE[1:], (int(count[0]) for count in counts), strict=True))
            self.scaler.load_state_dict(self.scaler.state_dict() | {"scale": scale} | counts)


def _as_dtype(values, dtype):
    """`values`, a tensor, a tuple of tensors or None, converted to `dtype`."""
    if isinstance(values, tuple):
        return tuple(value.astype(dtype) for value in values)
    return values if values is None else values.astype(dtype)

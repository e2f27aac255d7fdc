"""Mixed precision without a GPU: it is refused, and some operations would stay in float32."""

import paddle
import paddle.amp.amp_lists
import pytest

from trainer import Trainer
from utils import UserError


@pytest.mark.parametrize(("amp", "dtype"), [("bf16", "bfloat16"), ("fp16", "float16")])
def test_amp_on_the_cpu_is_refused_since_paddle_lacks_the_kernel(make_parameters, amp, dtype):
    with pytest.raises(UserError, match=f"--amp {amp} needs a GPU: Paddle has no {dtype} convolution"):
        Trainer(make_parameters("acgan-digits", amp=amp))
    images, kernel = (paddle.ones(shape).astype(dtype) for shape in ([1, 1, 4, 4], [1, 1, 3, 3]))
    with pytest.raises(RuntimeError, match="kernel"):
        paddle.nn.functional.conv2d(images, kernel)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_spectral_norms_products_stay_in_float32(dtype):
    assert not {"mv", "dot"} & paddle.amp.amp_lists.white_list()[dtype]["O1"]

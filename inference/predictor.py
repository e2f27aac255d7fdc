"""Networks compiled by `paddle.inference`, which joins operations and runs them in oneDNN on the CPU."""

import sys
import tempfile
from pathlib import Path

import paddle
from paddle import inference
from paddle.static import InputSpec

import runtime


class Predictor:
    """A compiled network: a function from NumPy arrays to a list of NumPy arrays.

    A call uses `threads` threads of the maths library, and Python's other threads wait meanwhile. So call it from one
    thread. It keeps a copy of the network's weights.
    """

    def __init__(self, network, inputs, threads):
        """`network`: a layer in evaluation mode. `inputs`: (shape, dtype) of each input; None is a free axis."""
        with tempfile.TemporaryDirectory() as folder:
            prefix = Path(folder) / "network"
            paddle.jit.save(network, str(prefix), input_spec=[InputSpec(*spec) for spec in inputs])
            # Paddle 3 writes .json, Paddle 2 .pdmodel.
            program = next(path for path in map(prefix.with_suffix, (".json", ".pdmodel")) if path.exists())
            config = inference.Config(str(program), f"{prefix}.pdiparams")
            config.disable_gpu()
            config.disable_glog_info()
            config.enable_mkldnn()
            config.set_cpu_math_library_num_threads(threads)
            self._predictor = inference.create_predictor(config)
        self._sources = list(map(self._predictor.get_input_handle, self._predictor.get_input_names()))
        self._targets = list(map(self._predictor.get_output_handle, self._predictor.get_output_names()))

    def __call__(self, *arrays):
        for source, array in zip(self._sources, arrays, strict=True):
            source.reshape(array.shape)
            source.copy_from_cpu(array)
        self._predictor.run()
        runtime.set_threads(runtime.threads())  # the predictor has set them for the whole process
        return [target.copy_to_cpu() for target in self._targets]


def compiled(name, make, inputs, threads):
    """The `Predictor` of the network that `make()` returns, or None if it cannot be made, which a line on stderr says.

    `name` is the network's in this line. `inputs` and `threads` are those of `Predictor`.
    """
    try:
        return Predictor(make(), inputs, threads)
    except Exception as error:  # this build of Paddle may lack oneDNN
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        print(f"{name} runs without oneDNN, two to three times slower: {reason}", file=sys.stderr)
        return None

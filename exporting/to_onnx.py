"""Converts a saved Paddle inference model to ONNX. It runs in the environment of `make export-env`, as a script.

`python to_onnx.py PREFIX SAMPLES TARGET`: PREFIX is that of `paddle.jit.save`. SAMPLES is a .npz file with z, labels
and images of the generator. The last line of the output is the largest difference between these images and
onnxruntime's, for batches of 1, 3 and 4.
"""

import json
import os
import sys

import numpy as np
import onnx
import onnxruntime
import paddle2onnx

OPSET = 17
BATCHES = 1, 3, 4


def main(prefix, samples, target):
    # Paddle 3 writes .json, Paddle 2 .pdmodel.
    program = next(prefix + ending for ending in (".json", ".pdmodel") if os.path.exists(prefix + ending))
    # Its optimizer would install packages.
    paddle2onnx.export(program, prefix + ".pdiparams", target, opset_version=OPSET, optimize_tool="None")
    model = onnx.load(target)
    if program.endswith(".json"):
        set_slopes(model.graph, program)
    tidy(model.graph)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)
    print(largest_difference(target, np.load(samples)))


def set_slopes(graph, program):
    """Set the slopes of leaky ReLUs to those in Paddle 3's `program`. paddle2onnx reads the float64 as a float32."""
    with open(program, encoding="utf-8") as file:
        slopes = [found["AT"]["D"] for found in attributes(json.load(file)) if found["N"] == "negative_slope"]
    for node, slope in zip((node for node in graph.node if node.op_type == "LeakyRelu"), slopes, strict=True):
        node.attribute[0].f = slope


def attributes(value):
    """The attributes of the operations in a program, in their order. An attribute has a name N and a value AT."""
    if isinstance(value, dict) and {"N", "AT"} <= value.keys():
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from attributes(item)


def tidy(graph):
    """Name the output `images` and the free axis N, put the inputs in order, and remove constants that are not used."""
    (output,) = graph.output
    for node in graph.node:
        for index, name in enumerate(node.output):
            if name == output.name:
                node.output[index] = "images"
    output.name = "images"
    inputs = sorted(graph.input, key=lambda value: ("z", "labels").index(value.name))
    del graph.input[:]
    graph.input.extend(inputs)
    for value in (*graph.input, output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    used = {name for node in graph.node for name in node.input}
    kept = [constant for constant in graph.initializer if constant.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def largest_difference(path, samples):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    differences = []
    for count in BATCHES:
        (images,) = session.run(["images"], {name: samples[name][:count] for name in ("z", "labels")})
        differences.append(np.abs(images - samples["images"][:count]).max())
    return max(differences)


if __name__ == "__main__":
    main(*sys.argv[1:])

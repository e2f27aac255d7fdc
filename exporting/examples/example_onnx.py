"""Draws a grid of images into grid.png: ten samples of each of the first ten classes. It needs onnxruntime alone."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np  # comes with onnxruntime
import onnxruntime


def write_png(path, pixels):
    """Write uint8 [height, width, 1 or 3]."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks]
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(data))


folder = Path(__file__).parent
config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
options = onnxruntime.SessionOptions()
options.log_severity_level = 3  # errors only
session = onnxruntime.InferenceSession(folder / "model.onnx", options, ["CPUExecutionProvider"])

classes = min(10, config["num_classes"])
z = np.random.default_rng(0).standard_normal([10, config["z_dim"]]).astype("float32")
rows = []
for label in range(classes):
    (images,) = session.run(["images"], {"z": z, "labels": np.full(10, label, "int64")})  # [10, C, H, W]
    rows.append(np.concatenate(list(images), axis=2))  # side by side
low, high = config["image_range"]
grid = (np.concatenate(rows, axis=1) - low) / (high - low) * 255
write_png("grid.png", grid.round().clip(0, 255).astype("uint8").transpose(1, 2, 0))

"""Draws a grid of images into grid.png: ten samples of each of the first ten classes. It needs paddlepaddle alone."""

import json
from pathlib import Path

import numpy as np
import paddle
from PIL import Image  # comes with paddlepaddle

folder = Path(__file__).parent
config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
generator = paddle.jit.load(str(folder / "paddle" / "model"))
generator.eval()

classes = min(10, config["num_classes"])
z = np.random.default_rng(0).standard_normal([10, config["z_dim"]]).astype("float32")
rows = []
for label in range(classes):
    images = generator(paddle.to_tensor(z), paddle.full([10], label, "int64")).numpy()  # [10, C, H, W]
    rows.append(np.concatenate(list(images), axis=2))  # side by side
low, high = config["image_range"]
grid = (np.concatenate(rows, axis=1) - low) / (high - low) * 255
Image.fromarray(grid.round().clip(0, 255).astype("uint8").transpose(1, 2, 0).squeeze()).save("grid.png")

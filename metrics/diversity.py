"""Diversity within a class: how far two images of a class lie apart, which a collapsed generator cannot fake."""

import numpy as np


def class_distance(images, labels, most=1000):
    """Mean Euclidean distance between two images of the same class, in grey levels, averaged over the classes.

    `images` uint8 [N, C, H, W], `labels` int64 [N]; all pairs of the first `most` images of each class. Returns
    {"class_distance": float}; classes with fewer than two images do not count, and without others it is NaN.
    """
    means = []
    for label in np.unique(labels):
        flat = images[labels == label][:most].reshape(-1, np.prod(images.shape[1:])).astype(np.float64)
        count = len(flat)
        if count < 2:
            continue
        squares = (flat**2).sum(1)
        distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * flat @ flat.T, 0))
        np.fill_diagonal(distances, 0)
        means.append(distances.sum() / (count * (count - 1)))
    return {"class_distance": float(np.mean(means)) if means else float("nan")}

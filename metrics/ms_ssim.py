"""MS-SSIM, multi-scale structural similarity: the similarity of two images. It is 1 for equal images.

Wang, Simoncelli, Bovik, *Multi-scale structural similarity for image quality assessment*, Asilomar 2003, eq. 7.
"""

import numpy as np

from utils import UserError

# The paper's exponents of the five scales, finest first.
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST = 2 ** (len(WEIGHTS) - 1)  # pixels per side; the coarsest scale of such an image has 1
WINDOW, SIGMA = 11, 1.5
# From this side length on, every scale is at least as large as the window.
USUAL_SIDE = WINDOW * 2 ** (len(WEIGHTS) - 1)
CHUNK = 4  # pairs computed at once; few enough for the processor's caches


def ms_ssim(a, b, data_range=255.0):
    """MS-SSIM of each pair (a[i], b[i]), computed in float64.

    Contrast below 0 counts as 0, and so does similarity at the coarsest scale.

    From 176 pixels per side on, this is the usual MS-SSIM (the package pytorch-msssim 1.0.0): one value per channel,
    then the mean over channels.

    Below 176 pixels, some scale is smaller than the 11×11 window. There it is the MS-SSIM of TensorFlow's msssim.py,
    which the ACGAN paper used at 128 pixels (Odena et al., ICML 2017, section 4.2). It averages contrast and similarity
    over channels before it multiplies the scales. It shrinks the window to the image, and sigma in proportion. If a
    side is odd, it repeats the last line before it halves the side.

    Args:
        a, b: [N, C, H, W], uint8 or float; at least 16 pixels per side. Black has to be 0, because the luminance term
            is relative to black. So add 1 to images in [-1, 1].
        data_range: float, the largest possible value: 255, or 2 for images in [-1, 1] after that shift.

    Returns:
        float64 [N], in [0, 1].

    Raises:
        UserError: other shapes, or a NaN.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.ndim != 4 or min(a.shape[2:]) < SMALLEST:
        raise UserError(
            "MS-SSIM needs two batches of images [N, C, H, W] of one shape, 16 pixels or more a side, "
            f"not {list(a.shape)} and {list(b.shape)}"
        )
    scores = [_chunk_ms_ssim(a[i : i + CHUNK], b[i : i + CHUNK], data_range) for i in range(0, len(a), CHUNK)]
    scores = np.concatenate(scores) if scores else np.empty(0)
    if not np.isfinite(scores).all():
        raise UserError("the images hold a NaN or an infinity, so they have no MS-SSIM")
    return scores


def _chunk_ms_ssim(a, b, data_range):
    a, b = a.astype(np.float64), b.astype(np.float64)
    as_usual = min(a.shape[2:]) >= USUAL_SIDE
    product = 1.0
    for scale, weight in enumerate(WEIGHTS):
        similarity, contrast = _ssim(a, b, data_range)
        if not as_usual:
            similarity, contrast = (value.mean(axis=1, keepdims=True) for value in (similarity, contrast))
        is_last = scale == len(WEIGHTS) - 1
        product *= np.maximum(similarity if is_last else contrast, 0) ** weight
        if not is_last:
            a, b = _halve(a, as_usual), _halve(b, as_usual)
    return product.mean(axis=1)


def _ssim(a, b, data_range):
    """Mean structural similarity and its contrast-structure factor, each [N, C]."""
    mean_a, mean_b = _blur(a), _blur(b)
    mean_product, mean_squares = mean_a * mean_b, mean_a**2 + mean_b**2
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    contrast = (2 * (_blur(a * b) - mean_product) + c2) / (_blur(a**2 + b**2) - mean_squares + c2)
    similarity = contrast * (2 * mean_product + c1) / (mean_squares + c1)
    return similarity.mean(axis=(2, 3)), contrast.mean(axis=(2, 3))


def _blur(images):
    """Images filtered by the Gaussian window, without the borders where the window does not fit."""
    import cv2  # here, because `--help` does not need it

    height, width = images.shape[2:]
    size = min(WINDOW, height, width)
    offsets = np.arange(size) - (size - 1) / 2
    window = np.exp(-(offsets**2) / (2 * (SIGMA * size / WINDOW) ** 2))
    window /= window.sum()
    # Join all images to one tall image and filter it in one call. Lines that mix two images are in the borders, which
    # are cut off.
    blurred = cv2.sepFilter2D(images.reshape(-1, width), cv2.CV_64F, window, window).reshape(images.shape)
    first = size // 2
    return blurred[:, :, first : first + height - size + 1, first : first + width - size + 1]


def _halve(images, as_usual):
    """2×2 means. An odd side gets one more line first: zeros in front with `as_usual`, else the last line again."""
    odd = [side % 2 for side in images.shape[2:]]
    if any(odd):
        widths = [(0, 0), (0, 0), *((line, 0) if as_usual else (0, line) for line in odd)]
        images = np.pad(images, widths, mode="constant" if as_usual else "edge")
    rows = images[:, :, ::2] + images[:, :, 1::2]
    return (rows[..., ::2] + rows[..., 1::2]) / 4

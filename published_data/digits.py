"""The handwritten digits that come with scikit-learn."""

import numpy as np

from published_data.record import DataSet


def read_digits(path, split):
    """Images uint8 [N, 8, 8] in 0 … 255 and labels of scikit-learn's 1,797 digits. Every fifth is a test image.

    There are no files, so `path` has no effect.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    chosen = (np.arange(len(images)) % 5 == 0) == (split == "test")
    return images[chosen], digits.target[chosen]


DATA_SETS = (
    DataSet(
        "digits",
        class_names=tuple("0123456789"),
        read=read_digits,
        recipe="acgan-digits",
        licence="cc-by-4.0",
        source=(
            "The 1,797 digits of scikit-learn: the test set of *Optical Recognition of Handwritten Digits* "
            "(E. Alpaydin, C. Kaynak, 1998, UCI Machine Learning Repository, https://doi.org/10.24432/C50P49), "
            "licence CC BY 4.0."
        ),
        order=10,
        gray=True,
        built_in=True,
        filter="bicubic",  # 8 pixels are enlarged
    ),
)

"""Intra-FID: the mean over all classes of the FID within a class.

Miyato and Koyama, *cGANs with Projection Discriminator*, ICLR 2018, section 4.1; SAGAN section 4. It is high if G
ignores the class or repeats one image.
"""

import numpy as np

from metrics.fid import caution_few_samples, fid_of_features
from metrics.record import Figure, Metric
from utils import UserError


def intra_fid(real, real_labels, fake, fake_labels, num_classes, progress=None):
    """Mean over all classes of the FID between the real and the fake samples of a class.

    Args:
        real, fake: float [N_real, width] and [N_fake, width].
        real_labels, fake_labels: int [N_real] and [N_fake], in 0 … num_classes - 1.
        progress: None, or a function progress(done, total) that is called after each class.

    Returns:
        {"intra_fid": float, "intra_fid_classes": float [num_classes]}.

    Raises:
        UserError: a class with fewer than two samples in either set, widths that differ, or a NaN.
    """
    distances = np.empty(num_classes)
    for label in range(num_classes):
        of_class = [real[real_labels == label], fake[fake_labels == label]]
        for name, rows in zip(("real", "generated"), of_class, strict=True):
            if len(rows) < 2:
                raise UserError(f"intra-FID needs two {name} images of each class; class {label} has {len(rows)}")
        distances[label] = fid_of_features(*of_class)["fid"]
        if progress:
            progress(label + 1, num_classes)
    return {"intra_fid": float(distances.mean()), "intra_fid_classes": distances}


def _compute(sets):
    real, samples = sets.real, sets.samples
    with sets.progress("intra-FID", "class") as show:
        found = intra_fid(real.features, real.labels, samples.features, samples.labels, sets.num_classes, show)
    return {"intra_fid": found["intra_fid"]}


METRICS = (
    Metric(
        "intra_fid",
        (Figure("intra_fid", "intra-FID", ".4f"),),
        _compute,
        order=20,
        features=True,
        fewest=2,
        fewest_of_class=2,
        needs_classes=True,
        caution=caution_few_samples,
    ),
)

"""Runs the metrics of this project on the drawn features and images of a fixture. Compares features and scores."""

import re

import numpy as np

from alignment import draw
from alignment.compare import compare
from metrics.fid import fid, gaussian_of
from metrics.inception import Inception
from metrics.inception_score import inception_score
from metrics.kid import kid
from metrics.ms_ssim import ms_ssim
from metrics.prdc import prdc
from utils import UserError

EXACT, CANCELLING, FEATURES = 1e-6, 1e-4, 1e-4  # tolerances: exact scores, differences of large terms, features
IMAGES = 16  # per batch through Inception
TAPS = ("64", "192", "768", "2048", "logits_unbiased", "logits")


def check_scores(fixture):
    """Rows of a fixture with scores of drawn features, logits and images."""
    seed, count, width = _seed(fixture), fixture.whole("n", 2), fixture.whole("dim")
    real = draw.rng("features/real", seed).standard_normal((count, width)).astype(np.float32)
    fake = (0.9 * draw.rng("features/fake", seed).standard_normal((count, width)) + 0.25).astype(np.float32)
    rows = []
    if "fid" in fixture:
        rows.append(compare("metric", "fid", fixture["fid"], fid(gaussian_of(real), gaussian_of(fake))["fid"], EXACT))
    if "inception_score" in fixture:
        logits = 3 * draw.rng("logits", seed).standard_normal((count, fixture.whole("classes")))
        found = inception_score(logits.astype(np.float32), fixture.whole("splits"))
        reference = fixture["inception_score"]
        rows.append(compare("metric", "inception score", reference["mean"], found["inception_score"], EXACT))
        rows.append(compare("metric", "inception score, std", reference["std"], found["inception_score_std"], EXACT))
    if "kid_one_subset_of_all" in fixture:
        reference = fixture["kid_one_subset_of_all"]
        rows.append(compare("metric", "kid", reference, _kid(real, fake), CANCELLING))
    for key in fixture:
        if match := re.fullmatch("prdc_k([0-9]{1,4})", key):
            found = prdc(real, fake, int(match[1]))
            rows += [compare("metric", name, value, found[name], EXACT) for name, value in fixture[key].items()]
    if "ms_ssim" in fixture:
        rows += _ms_ssim_rows(fixture["ms_ssim"], seed)
    return rows


def _ms_ssim_rows(references, seed):
    first, second = (draw.blobs(8, 176, seed, variant).astype(np.float64) for variant in (0, 1))
    others = {"pairs_0_1": second, "pairs_0_mix": np.round(0.8 * first + 0.2 * second)}
    return [
        compare("metric", f"ms-ssim {name}", references[name], ms_ssim(first, other), CANCELLING)
        for name, other in others.items()
        if name in references
    ]


def check_inception(fixture):
    """Rows of a fixture with Inception-v3's features of drawn images, and their scores. The weights are drawn too."""
    seed, count = _seed(fixture), fixture.whole("images_per_set", 2)
    weights = {
        name: draw.weight(f"inception.{name}", shape, seed, gain=2**0.5).astype(np.float32)
        for name, shape in fixture.shapes("state").items()
    }
    inception, rows = Inception(weights, TAPS), []
    for size in fixture["sizes"]:
        sets = [_features(inception, draw.blobs(count, size, seed, variant)) for variant in (0, 1)]
        for variant, references in fixture["features"][str(size)].items():
            for tap, reference in references.items():
                found = sets[int(variant)][tap]
                rows.append(compare("metric", f"{size} pixels, set {variant}, {tap}", reference, found, FEATURES))
        for name, reference in fixture["metrics"][str(size)].items():
            # KID is a difference of means of a kernel near 1, and the reference computes it in float32.
            tolerance, floor = (EXACT, 1.0) if name.startswith("kid") else (FEATURES, 0.0)
            found = _score(name, *sets)
            rows.append(compare("metric", f"{size} pixels, {name}", reference, found, tolerance, floor))
    return rows


def _features(inception, images):
    batches = [inception.features(images[start : start + IMAGES]) for start in range(0, len(images), IMAGES)]
    return {tap: np.concatenate([batch[tap] for batch in batches]) for tap in TAPS}


def _score(name, first, second):
    if match := re.fullmatch("fid_(64|192|768|2048)", name):
        return fid(gaussian_of(first[match[1]]), gaussian_of(second[match[1]]))["fid"]
    if match := re.fullmatch("inception_score_set0_([0-9]{1,4})splits", name):
        return list(inception_score(first["logits_unbiased"], int(match[1])).values())
    if name == "kid_polynomial_single_subset_of_all":
        return _kid(first["2048"], second["2048"])
    raise UserError(f"has the unknown score {name[:60]}")


def _kid(first, second):
    return kid(first, second, subsets=1, subset_size=len(first))["kid"]


def _seed(fixture):
    return fixture.whole("seed", 0, 2**32 - 1)

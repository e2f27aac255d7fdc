"""The 2015 Inception with drawn weights, against torch-fidelity's: features, and the scores computed from them."""

import http.server
import json
import threading
from pathlib import Path

import numpy as np
import paddle
import pytest

from alignment import draw
from dataset import batches, load_dataset
from metrics import inception_weights
from metrics.fid import fid, gaussian_of
from metrics.inception import CLASSES, POOLED, Inception, resize
from metrics.inception_score import inception_score
from metrics.inception_weights import find_weights, load_weights
from metrics.kid import kid
from parameters import Parameters
from trainer import Trainer
from utils import UserError

FIXTURE = json.loads((Path(__file__).parents[1] / "fixtures" / "inception_metrics.json").read_text())
SEED, COUNT = FIXTURE["seed"], FIXTURE["images_per_set"]


@pytest.fixture(scope="module")
def weights():
    return {
        name: draw.weight(f"inception.{name}", shape, SEED, gain=2**0.5).astype(np.float32)
        for name, shape in FIXTURE["state"].items()
    }


@pytest.fixture(scope="module")
def inception(weights):
    return Inception(weights, POOLED + CLASSES)


def features_of(inception, images, batch=16):
    found = [inception.features(images[start : start + batch]) for start in range(0, len(images), batch)]
    return {tap: np.concatenate([one[tap] for one in found]) for tap in inception.taps}


@pytest.mark.parametrize("size", [32, pytest.param(128, marks=pytest.mark.slow)])
def test_features_and_scores_equal_torch_fidelity(inception, size):
    """Features to 1e-5 and scores to 1e-4: the reference computes in float32, and its FID from singular covariances."""
    sets = [features_of(inception, draw.blobs(COUNT, size, SEED, variant)) for variant in (0, 1)]
    for variant, features in enumerate(sets):
        for tap, expected in FIXTURE["features"][str(size)][str(variant)].items():
            found, scale = draw.digest(features[tap]), expected["norm"] / np.sqrt(np.prod(expected["shape"]))
            assert found["shape"] == expected["shape"]
            assert found["norm"] == pytest.approx(expected["norm"], rel=1e-5), tap
            assert found["mean"] == pytest.approx(expected["mean"], abs=1e-5 * scale), tap
            assert found["projection"] == pytest.approx(expected["projection"], abs=1e-5 * scale), tap
    expected = FIXTURE["metrics"][str(size)]
    for tap in ("192", "2048"):
        score = fid(*(gaussian_of(features[tap]) for features in sets))["fid"]
        assert score == pytest.approx(expected[f"fid_{tap}"], rel=1e-4)
    score = inception_score(sets[0]["logits_unbiased"], splits=4)
    assert list(score.values()) == pytest.approx(expected["inception_score_set0_4splits"], abs=1e-6)
    score = kid(sets[0]["2048"], sets[1]["2048"], subsets=1, subset_size=COUNT)["kid"]
    assert score == pytest.approx(expected["kid_polynomial_single_subset_of_all"], abs=1e-6)


def trained_bits():
    """The weights after two steps of a small SAGAN."""
    options = {
        "dataset": "fake",
        "num_classes": 5,
        "imsize": 32,
        "attention_size": 16,
        "g_conv_dim": 8,
        "d_conv_dim": 8,
    }
    p = Parameters(**options, batch_size=4, device="cpu")
    trainer = Trainer(p)
    data = batches(load_dataset(p), p, 0)
    for _ in range(2):
        trainer.train_step(data)
    return {name: tensor.numpy() for name, tensor in trainer.G.state_dict().items()}


@pytest.mark.slow
def test_a_training_has_the_same_bits_after_a_measurement(weights):
    """Paddle's predictor sets the maths library to one thread, which rounds differently from two."""
    before = trained_bits()
    Inception(weights, ("2048",)).features(draw.blobs(2, 32, SEED, 0))
    for name, array in trained_bits().items():
        assert (array == before[name]).all(), name


def test_eager_equals_onednn(inception, weights):
    images = draw.blobs(3, 48, SEED)
    fast, eager = inception.features(images), Inception(weights, POOLED + CLASSES, eager=True).features(images)
    for tap in POOLED + CLASSES:
        assert fast[tap].dtype == eager[tap].dtype == np.float32
        assert np.abs(fast[tap] - eager[tap]).max() < 1e-4 * np.abs(eager[tap]).max()


@pytest.mark.parametrize("shape", [(16, 16), (46, 33), (299, 299), (512, 300)])
def test_resize_equals_that_of_tensorflow_1(shape):
    """out[i] is linear between the input's pixels around i·H/299."""
    images = np.random.RandomState(0).randint(0, 256, (1, 3, *shape)).astype(np.uint8)
    expected = (images.astype(np.float64) - 128) / 128
    for axis, length in ((2, shape[0]), (3, shape[1])):
        place = np.arange(299) * length / 299
        low = np.floor(place).astype(int)
        share = (place - low).reshape(-1, *[1] * (3 - axis))
        high = np.minimum(low + 1, length - 1)
        expected = expected.take(low, axis) * (1 - share) + expected.take(high, axis) * share
    np.testing.assert_allclose(resize(images).numpy(), expected, atol=1e-4)


def test_paddlegans_file_gives_features_but_no_classes(inception, weights, tmp_path):
    file = tmp_path / "InceptionV3.pdparams"
    renamed = {
        name.replace("running_mean", "_mean").replace("running_var", "_variance"): paddle.to_tensor(value)
        for name, value in weights.items()
        if not name.startswith("fc.")
    }
    paddle.save(renamed, str(file))
    loaded = load_weights(file)
    images = draw.blobs(2, 32, SEED)
    found = Inception(loaded, ("2048",), eager=True).features(images)
    np.testing.assert_allclose(found["2048"], inception.features(images)["2048"], atol=1e-4)
    assert list(found) == ["2048"]
    with pytest.raises(UserError, match="no 1008 class logits"):
        Inception(loaded, ("logits_unbiased",))


def test_weights_of_another_network_are_refused(weights):
    with pytest.raises(UserError, match=r"fc.weight is float32 \[1000, 2048\], not float \[1008, 2048\]"):
        Inception(weights | {"fc.weight": np.zeros((1000, 2048), np.float32)})
    with pytest.raises(UserError, match="470 of its 470 arrays are missing"):
        Inception({"linear.weight": np.zeros((2, 2))})
    name = "Mixed_7c.branch_pool.conv.weight"
    with pytest.raises(UserError, match=f"{name} holds a NaN"):
        Inception(weights | {name: np.full_like(weights[name], np.nan)})
    with pytest.raises(UserError, match=r"no features \['1024'\]"):
        Inception(weights, ("1024",))


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 3, 8, 8), np.float32), np.zeros((1, 1, 8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8)],
    ids=["floats", "grey", "one image"],
)
def test_images_that_are_not_rgb_batches_are_refused(inception, images):
    with pytest.raises(UserError, match=r"needs uint8 images \[N, 3, H, W\]"):
        inception.features(images)


def test_damaged_or_missing_weights_are_refused(tmp_path):
    published = tmp_path / inception_weights.FILE
    published.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(UserError, match="is damaged: its SHA-256 is"):
        find_weights(published)
    with open(tmp_path / "renamed.pth", "wb") as file:
        file.truncate(inception_weights.SIZE)
    with pytest.raises(UserError, match="is damaged: its SHA-256 is"):
        find_weights(tmp_path / "renamed.pth")
    with pytest.raises(UserError, match=r"--inception_weights .*absent.pth"):
        load_weights(tmp_path / "absent.pth")


@pytest.fixture
def published_by(monkeypatch, tmp_path):
    """`publish(content)`: a local server publishes the bytes, and the cache is empty. Returns the cache folder."""

    def publish(content):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        monkeypatch.setattr(inception_weights, "ADDRESSES", (f"http://127.0.0.1:{server.server_port}/weights.pth",))
        monkeypatch.setattr(inception_weights, "CACHE", str(tmp_path / "cache" / "weights"))
        return tmp_path / "cache" / "weights"

    servers = []
    yield publish
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_checked_download_is_kept(published_by, monkeypatch):
    digest = "f0e4c2f76c58916ec258f246851bea091d14d4247a2fc3e18694461b1816e13b"  # of b"asdf"
    monkeypatch.setattr(inception_weights, "SHA256", digest)
    cache = published_by(b"asdf")
    assert find_weights() == (cache / inception_weights.FILE, digest)
    monkeypatch.setattr(inception_weights, "ADDRESSES", ())
    assert find_weights()[0].read_bytes() == b"asdf"


def test_a_download_of_another_file_leaves_nothing(published_by):
    cache = published_by(b"a page that asks to log in")
    with pytest.raises(UserError, match="the address gave another file"):
        find_weights()
    assert list(cache.iterdir()) == []


def test_without_internet_the_refusal_says_where_to_get_the_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(inception_weights, "CACHE", str(tmp_path))
    monkeypatch.setattr(inception_weights, "ADDRESSES", ("http://127.0.0.1:9/weights.pth",))
    with pytest.raises(UserError) as caught:
        find_weights()
    message = str(caught.value)
    assert (
        inception_weights.FILE in message and "http://127.0.0.1:9/weights.pth" in message and str(tmp_path) in message
    )
    assert "\n" not in message
    assert "test.py measures without it by --metrics distance,ms_ssim" in message

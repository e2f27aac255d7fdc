"""`test.py --samples` from end to end: its figures, their names, and the reasons for refusals."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import randomness
import runtime
import tester
from alignment import draw
from command.line import CommandLine
from dataset import load_dataset
from evaluation.evaluation import Evaluation
from evaluation.measurement import Needs
from metrics import cas, inception_weights
from metrics.class_accuracy import at_resolution, class_accuracy
from metrics.diversity import class_distance, class_ms_ssim, varied_classes
from metrics.fid import FeatureStatistics, fid, save_statistics
from metrics.imagenet_classes import inception_classes
from metrics.inception import CLASSES, POOLED, Inception
from metrics.inception_score import inception_score
from metrics.intra_fid import intra_fid
from metrics.kid import kid
from metrics.prdc import prdc
from parameters import METRICS
from utils import UserError

FIXTURE = json.loads((Path(__file__).parents[1] / "fixtures" / "inception_metrics.json").read_text())
WORDNET, SIZE, EACH = ("n01440764", "n01443537"), 16, 5
LABELS = np.repeat(np.arange(2), EACH)
DIGITS = {"dataset": "digits", "num_classes": 10, "centercrop_size": 16}  # as the recipe, to share a classifier
REAL, TRAINING, SAMPLES = (draw.blobs(2 * EACH, SIZE, seed, seed % 2) for seed in range(3))


def class_folders(path, images, names):
    for index, (image, label) in enumerate(zip(images, LABELS, strict=True)):
        (path / names[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(path / names[label] / f"{index:02d}.png")
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of drawn Inception weights."""
    drawn = {name: draw.weight(f"inception.{name}", shape, 0, 2**0.5) for name, shape in FIXTURE["state"].items()}
    path = tmp_path_factory.mktemp("weights") / "drawn.safetensors"
    save_file({name: array.astype(np.float32) for name, array in drawn.items()}, path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with real images, training images, samples and their statistics."""
    path = tmp_path_factory.mktemp("data")
    class_folders(path / "real", REAL, WORDNET)
    class_folders(path / "training", TRAINING, WORDNET)
    class_folders(path / "unknown", REAL, ("cat", "dog"))
    np.savez(path / "samples.npz", SAMPLES.transpose(0, 2, 3, 1), LABELS)
    rows = np.random.default_rng(0).standard_normal((200, 64))
    for name, width in (("64", 64), ("2048", 2048)):
        statistics = FeatureStatistics(width)
        statistics.update(np.tile(rows, width // 64))
        save_statistics(path / f"{name}.npz", statistics.gaussian())
    return path


@pytest.fixture
def tested(tmp_path, weights, monkeypatch):
    """Do test.py's work with the given options; returns the content of report.json."""
    monkeypatch.chdir(tmp_path)

    def run(*options, inception=weights):
        given = ["--test_path", "out", "--device", "cpu", *options]
        given += ["--inception_weights", inception] if inception and "digits" not in options else []
        tester.Tester(CommandLine([str(option) for option in given], program="test").parameters()).test()
        return json.loads((tmp_path / "out" / "report.json").read_text())

    return run


@pytest.fixture
def refused(tested):
    """Do test.py's work with the given options; returns the sentence that refuses them. No report is left."""

    def run(*options, **more):
        with pytest.raises(UserError) as caught:
            tested(*options, **more)
        assert len(str(caught.value).splitlines()) == 1
        assert not Path("out/report.json").exists()
        return str(caught.value)

    return run


def gaussian(features):
    statistics = FeatureStatistics(features.shape[1])
    statistics.update(features)
    return statistics.gaussian()


@pytest.mark.slow
def test_every_metric_on_inception_equals_its_function(tested, data, weights, capsys):
    report = tested(
        *("--samples", data / "samples.npz", "--test_data_path", data / "real", "--data_path", data / "training"),
        *("--metrics", ",".join(name for name in METRICS if name != "cas"), "--dataset", "folder"),
    )
    inception = Inception(load_file(weights), POOLED + CLASSES)
    real, training, fake = (inception.features(images) for images in (REAL, TRAINING, SAMPLES))
    expected = {"fid": fid(gaussian(real["2048"]), gaussian(fake["2048"]))["fid"]}
    expected |= {f"fid_{tap}": fid(gaussian(real[tap]), gaussian(fake[tap]))["fid"] for tap in ("64", "192", "768")}
    expected["fid_floor"] = fid(gaussian(training["2048"]), gaussian(real["2048"]))["fid"]
    order = np.argsort(randomness.rng(29, "splits").permutation(len(SAMPLES)))
    expected |= inception_score(fake["logits_unbiased"][order])
    expected |= kid(real["2048"], fake["2048"], 100, 2 * EACH, 29) | prdc(real["2048"], fake["2048"], 5)
    expected["intra_fid"] = intra_fid(real["2048"], LABELS, fake["2048"], LABELS, 2)["intra_fid"]
    logits = inception_classes(WORDNET)
    for name, images, found in (("_real", REAL, real), ("", SAMPLES, fake)):
        low = inception.features(at_resolution(images, 8))["logits"]
        expected[f"accuracy_8{name}"] = class_accuracy(low, LABELS, logits)["class_accuracy"]
        expected[f"accuracy{name}"] = class_accuracy(found["logits"], LABELS, logits)["class_accuracy"]
    classes = [np.arange(EACH), np.arange(EACH, 2 * EACH)]
    similar = [[class_ms_ssim(images[of], 29, i) for i, of in enumerate(classes)] for images in (REAL, SAMPLES)]
    expected |= varied_classes(*similar)
    distances = [class_distance(images, LABELS)["class_distance"] for images in (SAMPLES, REAL)]
    expected["class_distance_ratio"] = distances[0] / distances[1]
    figures = report["figures"]
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name
    out = capsys.readouterr().out
    assert f"FID: {figures['fid']:.4f}" in " ".join(out.split())
    assert report["settings"]["extractor"].startswith("inception ")


def test_metrics_that_the_refusal_names_run_without_weights(tested, data, tmp_path, monkeypatch):
    """The refusal for missing weights names metrics that need none."""
    monkeypatch.setattr(inception_weights, "CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(inception_weights, "ADDRESSES", ("http://127.0.0.1:9/weights.pth",))
    options = ["--samples", data / "samples.npz", "--test_data_path", data / "real", "--dataset", "folder"]
    with pytest.raises(UserError, match=r"test.py measures without it by (--metrics \S+)$") as caught:
        tested(*options, inception=None)
    report = tested(*options, *str(caught.value).split()[-2:], inception=None)
    assert {"class_distance_ratio", "ms_ssim"} < report["figures"].keys()


def test_digits_are_measured_by_a_classifier(tested, make_parameters, tmp_path):
    """The samples are the real test images: distances are 0, accuracies are equal. No figure has an Inception name."""
    images = load_dataset(make_parameters(dataset="digits", num_classes=None), "test")
    np.savez(tmp_path / "digits.npz", images.stacked().transpose(0, 2, 3, 1), images.labels)
    chosen = [name for name in METRICS if name not in ("fid_64", "fid_192", "fid_768", "cas")]
    figures = tested("--samples", "digits.npz", "--dataset", "digits", "--metrics", ",".join(chosen))["figures"]
    plain = {name for name in figures if not name.startswith("classifier_")}
    assert plain == {"class_distance_ratio", "ms_ssim", "ms_ssim_real", "varied_classes", "varied_class_share"}
    assert figures["classifier_fid"] == pytest.approx(0, abs=1e-6) == figures["classifier_intra_fid"]
    assert 0 < figures["classifier_fid_floor"] < 10 and figures["classifier_kid"] < 1e-9
    assert figures["classifier_accuracy"] == figures["classifier_accuracy_real"] > 0.95
    assert 8 < figures["classifier_score"] < 10
    for name in ("precision", "recall", "coverage"):
        assert figures[f"classifier_{name}"] == 1
    assert figures["class_distance_ratio"] == pytest.approx(1, abs=0.05)


def test_the_classification_accuracy_score_needs_no_inception(tested, refused, data, monkeypatch):
    """It needs test images, training images and classes."""
    monkeypatch.setattr(cas, "UPDATES", 2)
    monkeypatch.setattr(cas, "BATCH", 4)
    options = ["--samples", data / "samples.npz", "--dataset", "folder", "--metrics", "cas"]
    message = refused(*options, "--test_data_path", data / "real", inception=None)
    assert message.startswith("--metrics cas compares --test_data_path with the training images: give --data_path")
    message = refused(*options, "--data_path", data / "training", inception=None)
    assert message == "--metrics cas needs test images: give --test_data_path DIR"
    folders = ("--test_data_path", data / "real", "--data_path", data / "training")
    report = tested(*options, *folders, inception=None)
    assert report["figures"].keys() == {"cas", "cas_real", "cas_reverse"}
    assert all(0 <= share <= 1 for share in report["figures"].values())
    settings = report["settings"]
    assert settings["classifier of cas"].startswith("ResNet-18, 2 updates of 4 images")
    assert settings["real images"] == f"test images of folder in {data}/real" and settings["extractor"] == "none"
    assert settings["training images"] == f"of folder in {data}/training"


@pytest.mark.slow
def test_weights_without_a_head_give_fid_alone(tested, refused, data, weights, tmp_path):
    """PaddleGAN's InceptionV3.pdparams, against published statistics, which need no real images."""
    headless = tmp_path / "InceptionV3.pdparams"
    state = load_file(weights)
    paddle.save({name: paddle.to_tensor(state[name]) for name in state if name.split(".")[0] != "fc"}, str(headless))
    options = ["--samples", data / "samples.npz", "--reference", data / "64.npz", "--metrics"]
    assert "no 1008 class logits" in refused(*options, "fid_64,is", inception=headless)
    report = tested(*options, "fid_64", inception=headless)
    assert report["settings"]["inception weights"].startswith("own file") and not report["settings"]["half precision"]
    assert list(report["figures"]) == ["fid_64"] and str(data / "64.npz") in report["settings"].values()


def test_reference_statistics_that_do_not_fit_are_refused(refused, data, tmp_path):
    samples = ["--samples", data / "samples.npz"]
    (tmp_path / "page.npz").write_text("<html>not found</html>")
    assert "--reference page.npz" in refused(*samples, "--reference", "page.npz", "--metrics", "fid")
    assert "width 64; --metrics needs 2048" in refused(*samples, "--reference", data / "64.npz", "--metrics", "fid")
    for metric in ("accuracy", "kid", "prdc", "intra_fid", "floor", "ms_ssim", "distance"):
        sentence = refused(*samples, "--reference", data / "2048.npz", "--metrics", f"fid,{metric}")
        assert f"--metrics {metric} needs real images" in sentence


@pytest.mark.parametrize(("metric", "fewest"), [("fid", 2), ("is", 10), ("kid", 2), ("prdc", 6)])
def test_too_few_samples_are_refused(refused, data, tmp_path, metric, fewest):
    np.savez(tmp_path / "few.npz", SAMPLES[: fewest - 1].transpose(0, 2, 3, 1))
    sentence = refused("--samples", "few.npz", "--test_data_path", data / "real", "--metrics", metric)
    assert f"'{metric}' needs {fewest} samples or more, not {fewest - 1}" in sentence and "--metrics" in sentence


def test_too_few_real_images_and_too_small_samples_are_refused(refused, data, tmp_path):
    """They are refused before anything is computed."""
    for name in ("a", "b"):
        (tmp_path / "two" / name).mkdir(parents=True)
        for index in range(2):
            Image.fromarray(REAL[index].transpose(1, 2, 0)).save(tmp_path / "two" / name / f"{index}.png")
    samples = ["--samples", data / "samples.npz"]
    assert "'prdc' needs 6 real images" in refused(*samples, "--test_data_path", "two", "--metrics", "fid,prdc")
    np.savez(tmp_path / "small.npz", SAMPLES[:, :, :12, :12].transpose(0, 2, 3, 1), LABELS)
    real = ["--test_data_path", data / "real"]
    assert "16 pixels or more a side, not 12" in refused("--samples", "small.npz", *real, "--metrics", "fid,ms_ssim")


def test_sample_classes_that_do_not_fit_are_refused(refused, data, tmp_path):
    images = SAMPLES.transpose(0, 2, 3, 1)
    np.savez(tmp_path / "none.npz", images)
    np.savez(tmp_path / "far.npz", images, np.where(LABELS, 99, 0))
    np.savez(tmp_path / "negative.npz", images, -LABELS)
    np.savez(tmp_path / "one.npz", images, LABELS * 0)
    real = ["--test_data_path", data / "real", "--metrics"]
    assert "needs the samples' classes" in refused("--samples", "none.npz", *real, "accuracy")
    for metric in ("intra_fid", "fid"):  # fid does not use the classes; it is refused too
        assert "contains class 99; valid classes are 0 to 1" in refused("--samples", "far.npz", *real, metric)
        assert "contains class -1" in refused("--samples", "negative.npz", *real, metric)
        class_folders(tmp_path / "numbered", SAMPLES, ("0020", "0021"))
        assert "contains class 20" in refused("--samples", "numbered", *real, metric)
    statistics = ["--reference", data / "2048.npz", "--metrics", "fid"]
    assert "valid classes are 0 to 8" in refused("--samples", "far.npz", *statistics, "--num_classes", 9)
    assert "2 samples of each class, but class 1 has 0" in refused("--samples", "one.npz", *real, "intra_fid")
    unknown = ["--test_data_path", data / "unknown", "--metrics", "accuracy"]
    assert "--metrics accuracy: Inception does not know the class 'cat'" in refused(
        "--samples", data / "samples.npz", *unknown
    )


def test_a_floor_of_a_folder_against_itself_is_refused(refused, data):
    options = ["--samples", data / "samples.npz", "--test_data_path", data / "real", "--metrics", "floor"]
    sentence = refused(*options, "--dataset", "folder", "--data_path", data / "training" / ".." / "real")
    assert "--metrics floor" in sentence and "hold the same images" in sentence


def test_an_unusable_test_path_is_refused_before_the_weights_are_read(refused, data, tmp_path):
    (tmp_path / "page.safetensors").write_text("<html>not found</html>")
    options = ["--samples", data / "samples.npz", "--reference", data / "64.npz", "--metrics", "fid_64"]
    sentence = refused(*options, "--test_path", "page.safetensors", inception="page.safetensors")
    assert sentence.startswith("--test_path page.safetensors cannot be used (File exists)")


def test_samples_of_mixed_sizes_are_refused(refused, data, tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(
        class_folders(tmp_path / "mixed", SAMPLES, "ab") / "a" / "x.png"
    )
    assert "mixes sizes" in refused("--samples", "mixed", "--test_data_path", data / "real", "--metrics", "fid")


@pytest.mark.slow
def test_features_that_are_not_finite_are_refused(refused, data, weights, tmp_path):
    """The weights are finite, but so large that an image's features are not."""
    huge = {
        name: array * np.float32(1e15 if "conv.weight" in name else 1) for name, array in load_file(weights).items()
    }
    save_file(huge, tmp_path / "huge.safetensors")
    options = ["--samples", data / "samples.npz", "--reference", data / "2048.npz", "--metrics", "fid,is"]
    assert "the features hold a NaN or an infinity" in refused(*options, inception="huge.safetensors")


def test_weights_with_a_wrong_checksum_are_refused(refused, data, weights, tmp_path):
    (tmp_path / inception_weights.FILE).write_bytes(weights.read_bytes())
    options = ["--samples", data / "samples.npz", "--reference", data / "2048.npz", "--metrics", "fid"]
    sentence = refused(*options, inception=inception_weights.FILE)
    assert "is damaged: its SHA-256 is" in sentence and inception_weights.ADDRESSES[0] in sentence


def test_without_weights_and_internet_the_refusal_says_where_to_get_them(refused, data, tmp_path, monkeypatch):
    monkeypatch.setattr(inception_weights, "CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(inception_weights, "ADDRESSES", ("http://127.0.0.1:9/weights.pth",))
    options = ["--samples", data / "samples.npz", "--reference", data / "2048.npz", "--metrics", "fid"]
    sentence = refused(*options, inception=None)
    for text in (inception_weights.FILE, "http://127.0.0.1:9/weights.pth", str(tmp_path / "cache")):
        assert text in sentence


class NoiseDigits:
    """300 images of noise as samples of digits. A signal comes when more than `stop_at` of them are asked for."""

    size = 16

    def __init__(self, stop=None, stop_at=None):
        self.labels, self.stop, self.stop_at, self.asked = np.arange(300) % 10, stop, stop_at, 0

    def __len__(self):
        return len(self.labels)

    def images(self, indices):
        self.asked += len(indices)
        if self.stop_at is not None and self.asked > self.stop_at:
            self.stop.asked = 2
        return np.random.default_rng(indices[0]).integers(0, 256, (len(indices), 1, 16, 16), np.uint8)


@pytest.mark.parametrize("metric", ["fid", "kid", "prdc", "intra_fid", "floor"])
def test_a_signal_before_the_last_stage_stops_the_evaluation(make_parameters, metric):
    """The signal comes when all samples are read. It ends the computation of the figure."""
    evaluation = Evaluation(make_parameters(**DIGITS, metrics=f"is,{metric}"))
    stop = runtime.StopRequest()
    assert evaluation.figures(NoiseDigits(stop, stop_at=299), stop) is None
    assert evaluation.figures(NoiseDigits(), runtime.StopRequest())


def test_the_floor_needs_no_samples(make_parameters):
    evaluation = Evaluation(make_parameters(**DIGITS, metrics="floor"))
    source = NoiseDigits()
    assert list(evaluation.figures(source, runtime.StopRequest())) == ["classifier_fid_floor"] and source.asked == 0


class CountingImageSet:
    """An `ImageSet` that counts the images that are asked for."""

    def __init__(self, image_set):
        self.image_set, self.asked = image_set, 0

    def __getattr__(self, name):
        return getattr(self.image_set, name)

    def __getitem__(self, index):
        self.asked += 1
        return self.image_set[index]


def test_real_images_are_compared_once_for_several_evaluations(make_parameters):
    evaluation = Evaluation(make_parameters(**DIGITS, metrics="ms_ssim,distance"))
    real = evaluation.image_sets["train"] = CountingImageSet(evaluation.image_sets["train"])
    stop = runtime.StopRequest()
    assert evaluation.figures(NoiseDigits(stop, stop_at=0), stop) is None
    first, asked = evaluation.figures(NoiseDigits(), runtime.StopRequest()), real.asked
    assert asked > 0 and evaluation.figures(NoiseDigits(), runtime.StopRequest()) == first
    assert real.asked == asked


def test_the_classes_of_test_images_are_read_once(make_parameters, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "test" / name / "0.png")
    p = make_parameters(
        "acgan-mlp", dataset="folder", num_classes=2, metrics="is", test_data_path=str(tmp_path / "test")
    )
    evaluation = Evaluation(p)
    labels = evaluation.drawn(None, 7).labels
    (tmp_path / "test").rename(tmp_path / "away")
    assert (evaluation.drawn(None, 7).labels == labels).all()


@pytest.mark.parametrize(
    ("metrics", "figures", "score"),
    [
        ("fid,is", {"fid": 7.0, "inception_score": 9.0}, -7.0),
        ("is,fid", {"fid": 7.0, "inception_score": 9.0}, 9.0),
        ("fid", {"classifier_fid": 7.0, "classifier_fid_floor": 1.0}, -7.0),
        ("is", {"classifier_score": 3.0, "classifier_score_std": 4.0}, 3.0),
        ("accuracy", {"classifier_accuracy": 0.5, "classifier_accuracy_real": 0.9}, 0.5),
        ("prdc", {"precision": 0.1, "recall": 0.2, "density": 0.3, "coverage": 0.4}, 0.3),
        ("kid", {"kid": 0.1, "kid_std": 0.2}, -0.1),
        ("intra_fid", {"classifier_intra_fid": 2.0}, -2.0),
        ("ms_ssim", {"ms_ssim": 0.3, "ms_ssim_real": 0.2}, -0.3),
        ("distance", {"class_distance_ratio": 0.8}, 0.8),
        ("fid_64", {"fid_64": 0.5}, -0.5),
    ],
)
def test_the_score_is_the_first_metric_and_higher_is_better(metrics, figures, score, make_parameters):
    digits = any(name.startswith("classifier") for name in figures)
    options = {"dataset": "digits", "num_classes": 10} if digits else {}
    assert Evaluation(make_parameters(metrics=metrics, **options)).score(figures) == score


def test_scores_compare_only_with_equal_settings_and_real_images(make_parameters, tmp_path):
    """The metric, the sampling and the real images must be equal. The folder of the real images does not matter."""
    rng = np.random.default_rng(0)
    for name in ("a/0/1.png", "a/0/2.png", "a/1/1.png", "a/1/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(16, 16, 3), dtype=np.uint8)).save(tmp_path / name)
    shutil.copytree(tmp_path / "a", tmp_path / "same")
    shutil.copytree(tmp_path / "a", tmp_path / "other")
    Image.new("RGB", (16, 16)).save(tmp_path / "other" / "1" / "2.png")

    def key(**changes):
        options = {"dataset": "folder", "num_classes": 2, "metrics": "distance", "test_data_path": str(tmp_path / "a")}
        return Evaluation(make_parameters(**options | changes)).key

    alike = [{}, {"test_data_path": str(tmp_path / "same")}, {"batch_size": 8}, {"batch_size_test": 8}]
    apart = [
        {"eval_samples": 7}, {"test_data_path": str(tmp_path / "other")}, {"labels": "0"}, {"use_ema": False},
        {"truncation": 1.0}, {"standing_batches": 2}, {"standing_batches": 2, "batch_size": 8}, {"metrics": "accuracy"},
    ]  # fmt: skip
    assert len({key(**changes) for changes in alike}) == 1
    assert len({key(**changes) for changes in [{}, *apart]}) == 1 + len(apart)


# The real images to compare with


@pytest.mark.parametrize(
    ("split", "images", "place"),
    [
        ("test", REAL, "test images of folder in {0}/real"),
        ("train", TRAINING, "training images of folder in {0}/training"),
        (
            "both",
            np.concatenate([TRAINING, REAL]),
            "training and test images of folder in {0}/training and {0}/real",
        ),
    ],
)
def test_samples_are_compared_with_the_real_images_of_the_split(tested, data, split, images, place):
    folders = ("--test_data_path", data / "real", "--data_path", data / "training", "--dataset", "folder")
    report = tested("--samples", data / "samples.npz", *folders, "--metrics", "distance", "--real_split", split)
    settings = report["settings"]
    assert (settings["real split"], settings["real images"]) == (split, place.format(data))
    assert settings["number of real images"] == len(images)
    labels = np.resize(LABELS, len(images))
    distances = [class_distance(*one)["class_distance"] for one in ((SAMPLES, LABELS), (images, labels))]
    np.testing.assert_allclose(report["figures"]["class_distance_ratio"], distances[0] / distances[1], rtol=1e-9)


def test_statistics_of_both_splits_are_those_of_all_images(make_parameters):
    """The floor compares test images with training images, whatever the split."""
    p = make_parameters(**DIGITS, metrics="fid,floor")
    source, figures = NoiseDigits(), {}
    for split in ("train", "test", "both"):
        evaluation = Evaluation(dataclasses.replace(p, real_split=split))
        figures[split] = evaluation.figures(source, runtime.StopRequest())
    read = {name: evaluation.extractor.read(load_dataset(p, name).stacked(), None, Needs(features=True))["features"]
            for name in ("train", "test")}  # fmt: skip
    read["both"] = np.concatenate([read["train"], read["test"]])
    drawn = np.concatenate([source.images(np.arange(256)), source.images(np.arange(256, 300))])  # as chunks
    samples = evaluation.extractor.read(drawn, None, Needs(features=True))["features"]
    floor = fid(gaussian(read["train"]), gaussian(read["test"]))["fid"]
    for split, features in read.items():
        expected = fid(gaussian(features), gaussian(samples))["fid"]
        np.testing.assert_allclose(figures[split]["classifier_fid"], expected, rtol=1e-4)
        np.testing.assert_allclose(figures[split]["classifier_fid_floor"], floor, rtol=1e-4)


def test_both_splits_need_the_same_classes(refused, data):
    folders = ("--test_data_path", data / "unknown", "--data_path", data / "training", "--dataset", "folder")
    message = refused("--samples", data / "samples.npz", *folders, "--metrics", "distance", "--real_split", "both")
    assert "--real_split both: the training images and the test images have other classes (gone: n0" in message


def test_samples_take_the_classes_of_the_training_images_they_are_compared_with(make_parameters, data):
    options = {"dataset": "folder", "num_classes": 2, "metrics": "distance", "data_path": str(data / "training")}
    evaluation = Evaluation(make_parameters("acgan-mlp", **options, real_split="train"))
    assert evaluation.draws_real_classes and evaluation.class_names == WORDNET
    assert sorted(evaluation.labels_to_draw(10)) == LABELS.tolist()
    with pytest.raises(UserError, match=r"--data_path \S+training does not have the classes that mine has"):
        evaluation.check_names(("cat", "dog"), "mine")

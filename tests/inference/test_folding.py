"""A folded generator equals the generator in evaluation mode, for any number of rows."""

import numpy as np
import paddle
import pytest
from drawn import SIZES, drawn_generator

from inference.folding import fold
from inference.predictor import Predictor


def images_of(layer, rows, p):
    rng = np.random.default_rng(1)
    z, labels = rng.normal(size=[rows, p.z_dim]).astype("float32"), np.arange(rows) % p.num_classes
    with paddle.no_grad():
        return layer(paddle.to_tensor(z), paddle.to_tensor(labels)).numpy()


@pytest.mark.parametrize("name", SIZES)
def test_a_folded_generator_equals_the_generator(make_parameters, name):
    p = make_parameters(name.partition(",")[0], **SIZES[name])
    network = drawn_generator(p)
    before = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    folded = fold(network)
    for rows in (1, 5):
        expected = images_of(network, rows, p)
        assert rows == 1 or expected.std(0).mean() > 1e-3
        np.testing.assert_allclose(images_of(folded, rows, p), expected, atol=2e-5)
    for key, tensor in network.state_dict().items():  # folding changes nothing, such as singular vectors
        assert (tensor.numpy() == before[key]).all(), key


@pytest.mark.parametrize("model", ["sagan", "sagan-cifar10", "acgan-digits"])
def test_a_folded_generator_is_saved_with_a_free_number_of_rows(make_parameters, model):
    p = make_parameters(model)
    network = drawn_generator(p)
    predictor = Predictor(fold(network), [([None, p.z_dim], "float32"), ([None], "int64")], 1)
    for rows in (1, 3):
        found = images_of(lambda z, labels: paddle.to_tensor(predictor(z.numpy(), labels.numpy())[0]), rows, p)
        np.testing.assert_allclose(found, images_of(network, rows, p), atol=2e-5)


def test_later_changes_of_the_generator_do_not_change_its_folded_copy(make_parameters):
    p = make_parameters("acgan-mlp")
    network = drawn_generator(p)
    folded = fold(network)
    before = images_of(folded, 3, p)
    for tensor in network.state_dict().values():
        tensor.set_value(paddle.zeros_like(tensor))
    assert (images_of(folded, 3, p) == before).all()


def test_another_network_cannot_be_folded():
    with pytest.raises(TypeError, match="Linear cannot be folded"):
        fold(paddle.nn.Linear(2, 2))

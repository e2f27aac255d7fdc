"""Fixtures: JSON files of reference figures. `draw` computes their weights and inputs from names."""

import json
import math
from pathlib import Path

from utils import UserError

MOST = 2**16  # the largest batch, number of classes, width and so on
MOST_NUMBERS = 2**28  # in all tensors of a fixture's networks: 2 GB


class Fixture(dict):
    """A JSON object. Reading a missing entry raises a UserError that names it."""

    def __missing__(self, key):
        raise UserError(f"lacks {json.dumps(key)}")

    def whole(self, name, least=1, most=MOST):
        """The entry `name`, a whole number from `least` to `most`."""
        value = self[name]
        if type(value) is not int or not least <= value <= most:
            raise UserError(f"has {name} {json.dumps(value)[:60]}, not a whole number from {least} to {most}")
        return value

    def positive(self, name):
        """The entry `name`, a number above 0."""
        value = self[name]
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise UserError(f"has {name} {json.dumps(value)[:60]}, not a number above 0")
        return float(value)

    def choice(self, name, values, default=None):
        """The entry `name`, one of `values`. If it is missing: `default`; without a default, UserError."""
        value = self[name] if default is None else self.get(name, default)
        if not isinstance(value, str) or value not in values:
            raise UserError(f"has {name} {json.dumps(value)[:60]}; known are {', '.join(values)}")
        return value

    def shapes(self, name):
        """The entry `name`: {name of a tensor: its shape, a tuple}."""
        shapes = self[name]
        for tensor, shape in shapes.items() if isinstance(shapes, dict) else [(name, shapes)]:
            if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in shape):
                raise UserError(f"gives {tensor[:60]} the shape {json.dumps(shape)[:60]}")
        if (count := sum(math.prod(shape) for shape in shapes.values())) > MOST_NUMBERS:
            raise UserError(f"asks for {count} numbers in {name}, more than {MOST_NUMBERS}")
        return {tensor: tuple(shape) for tensor, shape in shapes.items()}


def read(path):
    """The Fixture in the JSON file `path`. Raises UserError if it is missing or not one JSON object."""
    try:
        fixture = json.loads(Path(path).read_bytes(), object_hook=Fixture)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {str(error)[:100]}") from None
    if not isinstance(fixture, Fixture):
        raise UserError(f"{path} holds a JSON {type(fixture).__name__}, not an object")
    return fixture

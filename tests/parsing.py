"""Read a command line as train.py, test.py and pack.py do."""

import shlex

import pytest

from command.line import CommandLine
from utils import UserError


def parse(command, program="train", base=None):
    line = CommandLine(shlex.split(command), program)
    with line.naming_origins():
        return line.parameters(base)


def refusal(command, program="train", base=None):
    with pytest.raises(UserError) as caught:
        parse(command, program, base)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message

"""Small helpers: words for a shell, counts with their nouns."""

import os
import shlex
import subprocess

import pytest

from utils import plural, shell_word

NAMES = {
    "sagan_models/mine": "sagan_models/mine",
    "s p/a b": "'s p/a b'",
    "it's $HOME": shlex.quote("it's $HOME"),
    "花 1": "'花 1'",
    os.fsdecode("花".encode("gbk")): r"$'\xbb\xa8'",
    os.fsdecode(b"\xd6'\\ 0a\n"): r"$'\xd6\x27\x5c 0a\x0a'",
}


@pytest.mark.parametrize("name", NAMES, ids=map(ascii, NAMES))
def test_a_path_becomes_one_word_that_a_shell_reads_back(name):
    word = shell_word(name)
    assert word == NAMES[name] and word.isprintable()
    printed = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout
    assert os.fsdecode(printed) == name


def test_a_count_has_its_noun():
    assert [plural(*pair) for pair in ((1, "step"), (0, "step"), (1, "process"), (2, "process"))] == [
        "1 step",
        "0 steps",
        "1 process",
        "2 processes",
    ]

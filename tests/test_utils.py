"""Small helpers: words for a shell, counts with their nouns, errors of files that cannot be written."""

import errno
import os
import shlex
import subprocess

import pytest

from utils import UserError, atomic_path, is_full, plural, shell_word, writing

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


def test_an_error_of_a_file_names_the_option_that_gave_it(tmp_path):
    path = tmp_path / "none" / "file"
    with pytest.raises(UserError) as caught, writing("--out", path), atomic_path(path):
        pass
    assert str(caught.value) == f"--out {path} cannot be written: No such file or directory"
    with pytest.raises(FileNotFoundError), writing("--out", None):
        path.touch()
    with pytest.raises(BrokenPipeError), writing("--out", path):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")  # as printing to a closed pipe does


def test_only_a_full_disk_or_quota_is_full():
    assert [is_full(OSError(number, "")) for number in (errno.ENOSPC, errno.EDQUOT, errno.ENOENT)] == [
        True,
        True,
        False,
    ]

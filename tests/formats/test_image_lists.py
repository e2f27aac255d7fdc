"""The cached list of the images in class folders."""

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import ROOT, obey_file_permissions

from formats import image_files, image_lists
from formats.image_lists import list_images

NAMES = {"cat": ["a.jpg", "b.png", "ü.jpg"], "dog": [], "eel": ["0.jpg", os.fsdecode(b"\xff.jpg")]}
EXPECTED = [name for names in NAMES.values() for name in names]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three class folders, unchanged for an hour, and a cache of their own."""
    monkeypatch.setattr(image_lists, "CACHE", str(tmp_path / "cache"))
    for name, files in NAMES.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for file in (*files, "notes.txt"):
            (tmp_path / "data" / name / file).touch()
        age(tmp_path / "data" / name)
    return tmp_path / "data"


def age(path, seconds=3600):
    os.utime(path, ns=(time.time_ns() - seconds * 10**9,) * 2)


def names(found):
    return [found.name(place) for place in range(len(found.ends))]


def files_of_cache(folder):
    return list((folder.parent / "cache").glob("*.names"))


def listed(folder, monkeypatch):
    """(the names, whether they came from the cache)."""
    calls = []
    monkeypatch.setattr(image_lists, "image_names", lambda *args: calls.append(args) or image_files.image_names(*args))
    found = list_images(folder, "--data_path", list(NAMES))
    return names(found), not calls


def test_the_second_list_comes_from_the_cache_and_equals_the_first(folder):
    first, second = (list_images(folder, "--data_path", list(NAMES)) for _ in range(2))
    assert names(first) == names(second) == EXPECTED
    assert first.counts == second.counts == [3, 0, 2] and +first.skipped == +second.skipped == {".txt file": 3}
    assert isinstance(second.names, np.memmap) and isinstance(first.names, np.memmap)
    assert not list(folder.glob("*.names")) and len(files_of_cache(folder)) == 1
    (header,) = files_of_cache(folder)[0].read_bytes().splitlines()[:1]
    assert json.loads(header)["path"] == str(folder)


def test_a_changed_folder_is_listed_again(folder, monkeypatch):
    assert listed(folder, monkeypatch) == (EXPECTED, False)
    assert listed(folder, monkeypatch) == (EXPECTED, True)
    (folder / "dog" / "new.jpg").touch()
    assert listed(folder, monkeypatch) == ([*EXPECTED[:3], "new.jpg", *EXPECTED[3:]], False)
    age(folder / "dog", 1800)
    assert listed(folder, monkeypatch)[1] is False
    assert listed(folder, monkeypatch) == ([*EXPECTED[:3], "new.jpg", *EXPECTED[3:]], True)
    assert len(files_of_cache(folder)) == 1


def test_a_folder_that_has_just_changed_is_not_cached(folder, monkeypatch):
    age(folder / "cat", 0)
    assert [listed(folder, monkeypatch) for _ in range(2)] == [(EXPECTED, False)] * 2
    assert not files_of_cache(folder)


def test_other_classes_and_a_moved_folder_have_lists_of_their_own(folder):
    list_images(folder, "--data_path", list(NAMES))
    assert names(list_images(folder, "--data_path", ["eel", "cat"])) == [*EXPECTED[3:], *EXPECTED[:3]]
    shutil.copytree(folder, folder.with_name("copy"))
    (folder.with_name("copy") / "cat" / "a.jpg").unlink()
    age(folder.with_name("copy") / "cat")
    assert names(list_images(folder.with_name("copy"), "--data_path", list(NAMES))) == EXPECTED[1:]
    assert names(list_images(folder, "--data_path", list(NAMES))) == EXPECTED


def test_a_link_to_itself_is_named_at_every_start(folder, capsys):
    (folder / "cat" / "loop.jpg").symlink_to("loop.jpg")
    age(folder / "cat")
    list_images(folder, "--data_path", list(NAMES))
    assert "loop.jpg" in capsys.readouterr().err and not files_of_cache(folder)


def damaged(content):
    yield b""
    yield b"no JSON"
    yield b"[1]" + content[3:]
    yield content[:-1]
    yield content[:-1] + b"x"
    yield content.replace(b"image names 1", b"image names 2")
    yield content.replace(b'"counts": [3', b'"counts": [4')


def test_a_damaged_cache_is_reported_and_made_again(folder, capsys, monkeypatch):
    listed(folder, monkeypatch)
    (cached,) = files_of_cache(folder)
    for number, content in enumerate(damaged(cached.read_bytes())):
        cached.unlink()  # the list in use is mapped from the old file
        cached.write_bytes(content)
        monkeypatch.setattr(image_files, "_said", set())
        assert listed(folder, monkeypatch) == (EXPECTED, False), number
        assert capsys.readouterr().err.startswith(f"{cached} is ignored and made again: "), number
        assert listed(folder, monkeypatch) == (EXPECTED, True)


def test_a_cache_that_cannot_be_written_is_reported_once(folder, capsys, monkeypatch):
    (folder.parent / "cache").write_text("a file")
    assert [listed(folder, monkeypatch) for _ in range(2)] == [(EXPECTED, False)] * 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"the list of the images in {folder} is not cached: {folder.parent}/cache: File exists"


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from formats import image_lists
image_lists.CACHE = sys.argv[2]
found = image_lists.list_images(sys.argv[3], "--data_path", ["cat", "dog", "eel"])
print(len(found.ends), type(found.names).__name__)
"""


def test_processes_that_start_together_share_one_file(folder):
    command = [sys.executable, "-c", PROGRAM, ROOT, folder.parent / "cache", folder]
    started = [subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate()[0] for process in started] == ["5 memmap\n"] * 4
    assert len(files_of_cache(folder)) == 1


def test_a_read_only_cache_is_done_without(folder):
    (folder.parent / "cache").mkdir(mode=0o555)
    command = [sys.executable, "-c", PROGRAM, ROOT, folder.parent / "cache", folder]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, preexec_fn=obey_file_permissions, check=True
    )
    assert done.stdout == "5 ndarray\n" and "is not cached" in done.stderr and len(done.stderr.splitlines()) == 1

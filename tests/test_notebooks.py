"""docs/quickstart.ipynb and its Chinese twin: they say the same, and they run in AI Studio's folders."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from commands import LIMIT, ROOT

NOTEBOOKS = [ROOT / "docs" / name for name in ("quickstart.ipynb", "quickstart_cn.ipynb")]


def code(path):
    """The source of each code cell of a notebook, without comments and texts."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return [[line for line in source.splitlines() if line.isascii()] for source in sources]


def test_both_notebooks_have_the_same_code():
    english, chinese = map(code, NOTEBOOKS)
    assert len(english) == len(chinese) == 8
    for lines, others in zip(english, chinese, strict=True):
        assert [line for line in others if line not in lines] == []  # what is ASCII in Chinese is in English too


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_command_that_fails_shows_its_message(path, tmp_path):
    commands = [line for lines in code(path) for line in lines if re.match(r"!.* 2>", line)]
    assert len(commands) == 2
    values = {"{sys.executable}": sys.executable, "{errors}": f"{tmp_path}/errors.txt"}
    for command in commands:
        command = re.sub(r"\{.*?\}", lambda name: values.get(name[0], str(tmp_path)), command.removeprefix("!"))
        done = subprocess.run(command, shell=True, cwd=tmp_path, text=True, capture_output=True, timeout=LIMIT)
        assert "No such file" in done.stdout, command  # the program is not in this folder


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_ai_studio_s_folders_without_a_network(path, tmp_path, monkeypatch):
    """Needs requirements/notebook.txt."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    project = tmp_path / "aistudio" / "work" / "acgan-sagan"
    shutil.copytree(
        ROOT, project, symlinks=True, ignore=shutil.ignore_patterns(".*", "log", "__pycache__", "[a-z]*-[0-9]*")
    )
    monkeypatch.setenv("HOME", str(tmp_path / "aistudio"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing answers there
    book = nbformat.read(project / "docs" / path.name, 4)
    nbclient.NotebookClient(book, timeout=LIMIT, resources={"metadata": {"path": project / "docs"}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "trained 300 steps" in printed and "read as the class asked for" in printed
    pictures = [output for output in outputs if output.output_type == "display_data"]
    assert len(pictures) == 5
    run = tmp_path / "aistudio" / "work" / "runs" / "quickstart"
    assert (run / "test" / "report.md").exists() and (run / "threes.png").exists() and (run / "walk.gif").exists()

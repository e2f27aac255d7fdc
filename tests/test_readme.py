"""The READMEs and docs/: the example program runs; links, options, tests and messages that a page names exist."""

import ast
import os
import re
import subprocess
import sys

import pytest
from commands import LIMIT, ROOT, SMALL, run
from PIL import Image

from command.options import COMMANDS
from options import spellings
from parameters import BY_PROGRAM, OPTIONS, PUBLISHED

PAGES = [ROOT / "README.md", ROOT / "README_cn.md", ROOT / "sagan_models" / "README.md", *(ROOT / "docs").glob("*.md")]
PAGES += (ROOT / "weights").glob("*.md")
OF_OTHER_PROGRAMS = {
    "nnodes", "rank", "master", "host", "nproc_per_node", "ips",  # paddle.distributed.launch
    "logdir", "python", "help",  # visualdl, uv
    "no", "find", "only",  # pip: --no-index, --find-links, --only-binary
    "depth", "f",  # git, kubectl
    "signal", "nodes", "gpus", "export",  # sbatch
    "processes",  # benchmarks/check_gpu.py
    "report", "torch_python", "turns", "batch", "width", "load", "ours_before", "markdown",  # alignment, benchmarks
    "root", "seconds",  # benchmarks/profile_step.py, benchmarks/plot.py
    "out", "seeds", "rows",  # benchmarks/recipes.py
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with digits.pdparams, made as docs/checkpoints.md says."""
    folder = tmp_path_factory.mktemp("readme")
    training = [ROOT / "train.py", *SMALL, "--total_step", "1"]
    for command in (training, [ROOT / "convert.py", "sagan_models/acgan-digits-1", "digits.pdparams"]):
        code, _, err = run(folder, *command)
        assert code == 0, err
    return folder


def test_the_example_program_draws_four_digits(folder):
    page = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    picture = folder / "digits.png"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, check=True, timeout=LIMIT)
    with Image.open(picture) as image:
        assert image.size == (4 * 16, 16) and image.mode == "L"


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_link_targets_exist(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_on_pages_exist(page):
    known = {*spellings(OPTIONS.values()), *spellings(PUBLISHED.values())}
    known |= {name for command in COMMANDS.values() for name in command.options}
    known |= OF_OTHER_PROGRAMS
    known |= {name for names in BY_PROGRAM.values() for name in names}
    assert set(re.findall(r"(?<![\w-])--([A-Za-z]\w*)", page.read_text(encoding="utf-8"))) - known == set()


def messages():
    """The texts in the program, with … for each value that is filled in."""
    found = set()
    for path in [path for path in (*ROOT.glob("*.py"), *ROOT.glob("*/*.py")) if path.parent.name != "tests"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.add("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def says(message, quoted):
    """Whether `quoted` is `message` with some values, or a part of it between its punctuation marks."""
    starts = [0, *(match.end() for match in re.finditer(": ", message))]
    ends = [len(message), *(match.start() for match in re.finditer(" [(]|[:;]", message))]
    for part in {message[start:end] for start in starts for end in ends}:
        words = part.split("…")
        long_enough = sum(map(len, words)) > max(10, 0.3 * len(quoted))  # otherwise the values could be anything
        could_be = long_enough and all(word in quoted for word in words)
        if could_be and re.fullmatch(".+".join(map(re.escape, words)), quoted):
            return True
    return False


def test_the_program_says_the_messages_that_troubleshooting_quotes():
    """Those after the installation. `test_makefile.py` tests those of the installation."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\*\*`([^`]+)`\*\*$", page[page.index("## Starting a training") :], re.MULTILINE)
    assert len(quoted) > 10
    unknown, said = "--recipe … differs from what was trained, …", messages()
    assert [text for text in [*quoted, unknown] if not any(says(message, text) for message in said)] == [unknown]


def test_tests_named_in_reliability_exist():
    for name, test in re.findall(r"(test_\w+\.py)::(\w+)", (ROOT / "docs" / "reliability.md").read_text()):
        (path,) = (ROOT / "tests").rglob(name)
        assert f"\ndef {test}(" in path.read_text(), f"{name}::{test}"


def test_names_of_code_in_contributing_exist():
    code = "\n".join(path.read_text(encoding="utf-8") for path in (*ROOT.glob("*.py"), *ROOT.glob("*/*.py")))
    names = set(re.findall(r"`(\w+_\w+)`", (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")))
    assert names and {name for name in names if not re.search(rf"\b{name}\b", code)} == set()


TWINS = [
    (page, page.with_name(f"{page.stem}_cn.md")) for page in PAGES if page.with_name(f"{page.stem}_cn.md") in PAGES
]


def commands_and_links(page):
    """The blocks of commands and output without their comments, the options, and the pages that are linked.

    A Chinese page links Chinese pages where there are some, whose headings have other names.
    """
    text = page.read_text(encoding="utf-8")
    blocks = [
        re.sub("(?m)(^| +)#.*", "", block) for block in re.findall(r"^```.*?^```", text, re.DOTALL | re.MULTILINE)
    ]
    links = {link.split("#")[0].replace("_cn", "") for link in re.findall(r"\]\(([^)\s]+)\)", text)}
    return blocks, set(re.findall(r"(?<![\w-])--\w+", text)), links - {"", page.name.replace("_cn", "")}


@pytest.mark.parametrize("english, chinese", TWINS, ids=lambda page: page.stem)
def test_a_chinese_page_has_the_commands_options_and_links_of_the_english_one(english, chinese):
    assert commands_and_links(english) == commands_and_links(chinese)


def test_the_readme_and_five_pages_have_chinese_twins():
    assert {english.name for english, _ in TWINS} == {
        "README.md", "installation.md", "training.md", "evaluation.md", "data.md", "troubleshooting.md"
    }  # fmt: skip


def test_the_readmes_are_short():
    """Prose without tables and commands: at most 900 words, or 1,800 characters in Chinese."""
    for name, most, count in (
        ("README.md", 900, str.split),
        ("README_cn.md", 1800, lambda text: re.sub(r"\s", "", text)),
    ):
        text = re.sub(r"(?ms)^```.*?^```", "", (ROOT / name).read_text(encoding="utf-8"))
        prose = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
        assert len(count(prose)) <= most


def test_the_readmes_have_the_figures_of_the_digits():
    """Means of three seeds as in docs/recipes.md. For `make demo` the figure of its report, as in weights/."""
    recipes = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    report = (ROOT / "weights" / "acgan-digits.md").read_text(encoding="utf-8")
    (demo,) = re.findall(r"\| read as the class asked for \| ([0-9.]+)% \|", report)
    for page in (ROOT / "README.md", ROOT / "README_cn.md"):
        text = page.read_text(encoding="utf-8")
        for recipe, row in (("acgan-digits", "ACGAN"), ("sagan-digits", "as trained")):
            figures = re.search(rf"\| {row} \| 3 \| ([0-9.]+ %) ± \S+ % \| ([0-9.]+) ± ", recipes).groups()
            (shown,) = re.findall(rf"\| `{recipe}`[,，] ?[^|]*3 [^|]*\| ([0-9.]+ %)[;；] ?([0-9.]+) \|", text)
            assert shown == figures
        (sentence,) = re.findall(r"`make demo` [^`]*?([0-9.]+) %", text)
        assert sentence == demo

"""The program in the READMEs runs as it stands there."""

import os
import re
import subprocess
import sys

import pytest
from commands import LIMIT, ROOT, SMALL, run
from PIL import Image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with digits.pdparams, as the READMEs have it made."""
    folder = tmp_path_factory.mktemp("readme")
    training = [ROOT / "train.py", *SMALL, "--total_step", "1"]
    for command in (training, [ROOT / "convert.py", "sagan_models/acgan-digits-1", "digits.pdparams"]):
        code, _, err = run(folder, *command)
        assert code == 0, err
    return folder


@pytest.mark.parametrize("page", ["README.md", "README_cn.md"])
def test_the_program_draws_four_digits(folder, page):
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    picture = folder / "digits.png"
    picture.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, check=True, timeout=LIMIT)
    with Image.open(picture) as image:
        assert image.size == (4 * 16, 16) and image.mode == "L"

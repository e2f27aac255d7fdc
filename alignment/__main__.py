"""`python -m alignment FIXTURE.json [FIXTURE.json …] [--report DIR]` exits with 0 if every figure agrees, else 1."""

import argparse
from pathlib import Path

import runtime  # before paddle: it sets variables that paddle reads when it loads
from alignment import fixture, networks, report, scores
from utils import UserError


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m alignment", description=__doc__)
    parser.add_argument("fixtures", nargs="+", metavar="FIXTURE.json", help="reference figures to compare with")
    parser.add_argument(
        "--report", metavar="DIR", help="write alignment.md (all tables) and the files for reprod_log to DIR"
    )
    options = parser.parse_args(argv)
    if options.report and Path(options.report).exists() and not Path(options.report).is_dir():
        raise UserError(f"--report {options.report} is not a folder; give a folder or a new path")
    results = []
    for path in options.fixtures:
        figures = fixture.read(path)
        try:
            rows = check(figures)
        except UserError as error:
            raise UserError(f"{path} {error}") from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # A stranger may have written the fixture, so an entry may have any type.
            raise UserError(f"{path} is malformed ({type(error).__name__}: {str(error)[:100]})") from None
        results.append((Path(path).stem, figures, rows))
        print(f"{report.text_table(rows)}\n{report.summary(path, rows)}\n", flush=True)
    if options.report:
        report.write(Path(options.report), results)
    return int(not all(row.agrees for _, _, rows in results for row in rows))


def check(figures):
    """The Rows of a Fixture. Raises UserError for an unknown protocol or a fixture with nothing to compare."""
    if "protocol" in figures:
        rows = networks.check_training(figures)
    elif "G_state" in figures:
        rows = networks.check_published(figures)
    elif "features" in figures:
        rows = scores.check_inception(figures)
    elif {"fid", "inception_score", "prdc_k5", "ms_ssim"} & figures.keys():
        rows = scores.check_scores(figures)
    else:
        raise UserError(
            "is of no known protocol: it has neither protocol (sagan, acgan), nor G_state (of a published checkpoint), "
            "nor features (of Inception), nor scores (of metrics)"
        )
    if not rows:
        raise UserError("holds nothing to compare")
    return rows


if __name__ == "__main__":
    runtime.run(main)

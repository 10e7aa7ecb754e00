"""Judge a result of stage 05 against expected ranges that carry their source.

    python evaluation/assess_performance.py evaluation/results/RUN/evaluation_results.json

Reads    the given file (unset: the newest below evaluation/results) and expected_ranges.json.
Writes   a table with verdicts to stdout; the exit code says only whether the file could be judged.
Resumes  nothing: it takes a second.
"""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file from anywhere

RANGES = Path(__file__).resolve().parent / "expected_ranges.json"


class Parser(argparse.ArgumentParser):
    """Its errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(2, f"{self.prog}: {message}: see --help\n")


def newest_result() -> Path:
    """Return the result file that was written last.

    Raises:
        DataError: there is none.
    """
    from utils.checkout import RESULTS
    from utils.errors import DataError

    found = sorted(
        RESULTS.glob("*/evaluation_results.json"), key=lambda path: path.stat().st_mtime_ns
    )
    if not found:
        raise DataError(f"{RESULTS} holds no result: run `make evaluate`, or pass a file")
    return found[-1]


def show(path: Path) -> None:
    """Print the table of verdicts.

    Raises:
        DataError: the file is missing or is no evaluation result.
    """
    from utils.evaluation.judgement import judge, read_result
    from utils.files import read_json

    result = read_result(path)
    verdicts = judge(result, read_json(RANGES)["expectations"])
    head = ("measure", "measured", "expected", "verdict")
    rows = [(v.measure, v.measured, v.expected, v.verdict) for v in verdicts]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(3)]
    model = result["model"]
    sys.stdout.write(f"{model['name']}: {model['parameters']:,} parameters ({path})\n\n")
    for row in [head, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        sys.stdout.write("  ".join([*cells, row[3]]) + "\n")
    sys.stdout.write("\nWhere the expectations come from, or why there is no number:\n")
    for verdict in verdicts:
        sys.stdout.write(f"- {verdict.measure}: {verdict.source}\n")


def main() -> int:
    """Judge the file of the command line; return the exit code."""
    parser = Parser(
        description="Judge a result of stage 05 against expected ranges.", allow_abbrev=False
    )
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        help="evaluation_results.json, or its folder (unset: the newest)",
    )
    arguments = parser.parse_args()
    from utils.errors import LumiError
    from utils.log import setup_logging

    setup_logging()
    try:
        path = arguments.file or newest_result()
        show(path / "evaluation_results.json" if path.is_dir() else path)
    except LumiError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

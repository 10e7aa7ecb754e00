"""The rules of ARCHITECTURE.md that a machine can check."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = sorted(
    path for folder in ("utils", "scripts", "evaluation") for path in (ROOT / folder).rglob("*.py")
)
SCRIPTS = sorted((ROOT / "scripts").glob("0?_*.py"))


def layers() -> dict[str, int]:
    """Rank of each package; those on one line of the list in ARCHITECTURE.md are of one rank."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    listed = re.search(r"```layers\n(.*?)```", text, re.DOTALL)
    assert listed, "ARCHITECTURE.md has no ```layers block"
    lines = listed.group(1).strip().splitlines()
    return {name: rank for rank, line in enumerate(lines) for name in re.findall(r"\w+", line)}


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize(
    "path", sorted((ROOT / "utils").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_imports_point_downwards(path):
    ranks = layers()
    parts = path.relative_to(ROOT / "utils").parts
    own = parts[0].removesuffix(".py")
    if own == "__init__":
        return
    used = {name.split(".")[1] for name in imported(path) if name.startswith("utils.")}
    assert {other for other in used if other != own and ranks[other] >= ranks[own]} == set()


@pytest.mark.parametrize("path", PRODUCT, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_small(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= (150 if path in SCRIPTS else 300)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 50, f"{node.name} is too long"


@pytest.mark.parametrize("path", PRODUCT, ids=lambda p: str(p.relative_to(ROOT)))
def test_source_is_ascii(path):
    assert path.read_text(encoding="utf-8").isascii()


THROUGH_ANOTHER = {
    "test_growth.py": "fates",
    "test_file_parts.py": "parquet",
    "test_prepare.py": (
        "statistics corpus description encoding identity source_statistics documents rejected "
        "screening build clean_sources make_tokenizer"
    ),
    "test_readers.py": "formats",
    "test_tokenizer.py": "control_tokens json_file language_samples load sentencepiece "
    "transformers_files training",
    "test_suite.py": "measurements",
    "test_guard.py": "skipped_windows",
    "test_plan.py": "events",
    "test_02_pretrain.py": "samples seeding trainer run processes reporting",
    "test_03_sft.py": "run_folder callback training_loop splits",
    "test_06_serve.py": "errors completions schemas server",
}
"""Modules that are the inside of something: the test file that goes through them."""


def test_every_module_is_tested():
    """`utils/log.py` has `tests/utils/test_log.py`; settings are read by all."""
    inside = {name for names in THROUGH_ANOTHER.values() for name in names.split()}
    missing = [
        str(path.relative_to(ROOT))
        for path in PRODUCT
        if path.name != "__init__.py"
        and path.parent.name != "config"
        and path.stem not in inside
        and not (ROOT / "tests" / path.relative_to(ROOT).parent / f"test_{path.name}").is_file()
    ]
    assert missing == []
    for name in THROUGH_ANOTHER:
        assert list((ROOT / "tests").rglob(name)), name


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_a_script_tells_what_it_reads_and_writes(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring and all(word in docstring for word in ("Reads", "Writes"))


HEAVY = "torch transformers datasets trl peft fastapi accelerate sentencepiece pyarrow wandb"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_help_and_a_settings_error_answer_without_heavy_imports(path):
    code = (
        "import runpy, sys; sys.argv = [sys.argv[1], '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        f"except SystemExit: pass\nprint([m for m in '{HEAVY}'.split() if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.stdout.strip().splitlines()[-1] == "[]", done.stderr


def test_ruff_is_clean():
    for command in (["check", "."], ["format", "--check", "."]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-2000:]


def test_no_test_imports_mocks():
    for path in (ROOT / "tests").rglob("*.py"):
        assert not {name for name in imported(path) if "mock" in name}, path

"""The map of the library in docs/map.md, held to the tree; how folders may import each other."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UTILS = ROOT / "utils"
MAP = ROOT / "docs" / "map.md"
MOST_FILES = 17
"""Modules of one folder at most: a reader should see all of them at once."""
MOST_LINES = 200
"""Lines of ARCHITECTURE.md at most."""
MOST_COLUMNS = 120

MODULES = sorted(path for path in UTILS.rglob("*.py") if path.name != "__init__.py")
FOLDERS = sorted({path.parent for path in MODULES})


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def listed() -> list[str]:
    """Files that the map names, in its order: heading `## utils/chat`, line "- `rows`: ..."."""
    files, folder = [], ""
    for line in MAP.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            folder = line.removeprefix("## ").split()[0].strip("`").rstrip("/")
        elif entry := re.match(r"- `(\w+)`: \S", line):
            files.append(f"{folder}/{entry.group(1)}.py")
    return files


def proposed(path: Path) -> str:
    """A line for the map, made of the module's own docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "?"
    first = docstring.split("\n")[0].rstrip(".")
    return f"- `{path.stem}`: {first}"


def imported(path: Path) -> set[Path]:
    """Modules of utils that a module imports, wherever in its text."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            target = ROOT / f"{name.replace('.', '/')}.py"
            if name.startswith("utils.") and target.is_file():
                found.add(target)
    return found


def test_every_module_has_a_line_in_the_map():
    named = set(listed())
    missing = [path for path in MODULES if name_of(path) not in named]
    advice = [f"under ## {name_of(path.parent)}\n{proposed(path)}" for path in missing]
    assert not missing, "add to docs/map.md:\n" + "\n".join(advice)


def test_every_line_of_the_map_names_one_module():
    names = Counter(listed())
    gone = [name for name in names if not (ROOT / name).is_file()]
    assert not gone, "these files are gone: delete their lines from docs/map.md"
    twice = [name for name, count in names.items() if count > 1]
    assert not twice, "one line each in docs/map.md, please"


def test_the_map_and_the_table_of_folders_name_each_folder():
    headings = re.findall(r"^## (utils[\w/]*)", MAP.read_text(encoding="utf-8"), re.MULTILINE)
    folders = [name_of(path) for path in FOLDERS]
    assert sorted(headings) == folders, "docs/map.md: a heading for each folder, and no other"
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w/]+)/` \|", text, re.MULTILINE)
    expected = [name.removeprefix("utils/") for name in folders if name != "utils"]
    assert sorted(rows) == expected, "ARCHITECTURE.md: a row for each folder, and no other"


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_a_folder_can_be_seen_at_a_glance(folder):
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MOST_FILES, "make a folder for the parts that belong together"


def test_architecture_is_read_in_one_go():
    lines = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MOST_LINES, "move what is a reason or a figure to docs/"
    assert [line for line in lines if len(line) > MOST_COLUMNS] == []


def test_a_part_never_imports_the_story_of_its_package():
    """The files at the top of a package run it (its story); sub-folders hold what they use."""
    crossing = {
        (name_of(path), name_of(target))
        for path in MODULES
        for target in imported(path)
        if len(path.relative_to(UTILS).parts) > 2
        and target.parent == UTILS / path.relative_to(UTILS).parts[0]
    }
    assert not crossing, "hand the story's value to the part as an argument"


def test_folders_do_not_import_each_other_in_circles():
    """Each file at the top of utils/ counts as a folder of its own."""
    arrows: dict[str, set[str]] = {}
    for path in MODULES:
        for target in imported(path):
            start, end = (p if p.parent == UTILS else p.parent for p in (path, target))
            if start != end:
                arrows.setdefault(name_of(start), set()).add(name_of(end))
    while True:  # take away what imports nothing, or is imported by nothing, of what is left
        used = {end for ends in arrows.values() for end in ends}
        free = [f for f in arrows if f not in used or not arrows[f] & arrows.keys()]
        if not free:
            break
        for folder in free:
            del arrows[folder]
    circle = {folder: sorted(ends & arrows.keys()) for folder, ends in arrows.items()}
    assert circle == {}, "these folders import each other"

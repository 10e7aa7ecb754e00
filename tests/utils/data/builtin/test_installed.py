import pytest

from utils.data.builtin.installed import module_name


@pytest.mark.parametrize(
    ("file", "module"),
    [("json/__init__.py", "json"), ("json/decoder.py", "json.decoder"), ("six.py", "six")],
)
def test_modules_are_named_as_they_are_imported(file, module):
    assert module_name(file) == module


@pytest.mark.parametrize(
    "file",
    [
        "numpy/tests/helper.py",
        "pip/_vendor/rich/text.py",
        "pkg/test_it.py",
        "../../bin/x.py",
        "json/a-b.py",
        "numpy/linalg.pyi",
    ],
)
def test_tests_vendored_copies_and_what_cannot_be_imported_have_no_name(file):
    assert module_name(file) is None


def test_only_keeps_the_top_level_modules_it_names():
    assert module_name("json/decoder.py", ("json",)) == "json.decoder"
    assert module_name("jsonx.py", ("json",)) is None

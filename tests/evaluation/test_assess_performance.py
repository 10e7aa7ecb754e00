import json
import subprocess
import sys

import pytest


@pytest.fixture
def assess(root, tmp_path):
    def run(*arguments):
        command = [sys.executable, str(root / "evaluation/assess_performance.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)

    return run


@pytest.fixture
def result_file(tmp_path):
    accuracy = {"value": 0.6, "low": 0.5, "high": 0.69, "count": 100}
    content = {
        "format": 1,
        "model": {"name": "tiny", "parameters": 14_700_000},
        "results": {
            "boolq": {
                "title": "BoolQ",
                "status": "ok",
                "measures": {"accuracy": accuracy, "majority_class": 0.6217},
            },
            "wikitext": {"title": "WikiText-2", "status": "not run", "reason": "no file"},
        },
    }
    folder = tmp_path / "evaluation/results/tiny-1"
    folder.mkdir(parents=True)
    (folder / "evaluation_results.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "evaluation_results.json"


def test_a_result_is_judged_with_the_sources(assess, result_file):
    done = assess(str(result_file))
    assert (done.returncode, done.stderr) == (0, "")
    assert "no skill (majority class is 62.17%)" in done.stdout
    assert "Pythia-14m 38.0" in done.stdout
    assert "not run" in done.stdout


def test_without_a_file_the_newest_result_is_judged_and_a_folder_will_do(assess, result_file):
    assert assess().stdout == assess("evaluation/results/tiny-1").stdout
    assert assess().returncode == 0


def test_a_bad_file_is_one_line_and_exit_1(assess, tmp_path):
    for done in (assess("nothing.json"), assess()):
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert done.stdout == ""

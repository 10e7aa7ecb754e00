"""The page of a run: all its parts, no markup from a model, nothing from the network."""

import json
import re
from xml.etree import ElementTree

import pytest

from utils.errors import DataError
from utils.files import append_line, write_json
from utils.training.records.page import write_page


@pytest.fixture
def run_dir(tmp_path):
    """A run of 40 steps of 512 tokens with a resume, an early stop and a skipped window."""
    for step in range(1, 41):
        append_line(
            tmp_path / "metrics.jsonl",
            {"step": step, "time_s": step, "loss": 6 / step, "train_bpb": 3 / step,
             "learning_rate": 3e-3, "muon_learning_rate": 2e-2, "tokens": 512 * step,
             "tokens_per_s": 900.0 + step, "grad_norm": 0.5},
        )  # fmt: skip
        if step % 10 == 0:
            append_line(tmp_path / "metrics.jsonl", {"step": step, "time_s": 1, "val_bpb": 3.1})
    text = "</blockquote><script>alert(1)</script>"
    for record in (
        {"event": "plan", "step": 0, "total": 60},
        {"event": "resume", "step": 12},
        {"event": "skip", "step": 20, "loss": 99.5, "text": "<b>the window</b> " * 20},
        {"event": "early_stop", "step": 24, "total": 40},
        *({"event": "sample", "step": s, "prompt": "The", "text": text} for s in (10, 30)),
    ):
        append_line(tmp_path / "metrics.jsonl", {"time_s": 1.0, **record})
    write_json(
        tmp_path / "run.json",
        {"status": "finished", "started": "2026-01-01T00:00:00+00:00", "finished": "later",
         "settings": {"model_name": "toy", "seed": 1}, "environment": {"device": "cpu"},
         "summary": {"parameters": 1_600_000, "tokens": 20480, "val_bpb": 3.1, "mfu": 0.41,
                     "tokens_per_s": 921.0, "seconds": 130.0, "energy_wh": None}},
    )  # fmt: skip
    return tmp_path


def test_the_page_is_self_contained_and_escaped(run_dir):
    page = write_page(run_dir).read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(""", page)
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    assert "<b>the window" not in page and "&lt;b&gt;the window" in page


def test_all_parts_are_there(run_dir):
    page = write_page(run_dir).read_text()
    for words in (
        "Pre-training of toy",
        "1.6M",
        "20.5k",
        "MFU 41%",
        "2.2 min",
        '<td class="n">-</td>',
    ):
        assert words in page, words
    figures = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.S)]
    titles = [figure.find("title").text for figure in figures]
    assert titles == ["Training loss", "Bits per byte", "Learning rate", "Speed", "Gradient norm"]
    said = figures[1].find("desc").text
    assert "held out: from 3.1 to 3.1" in said  # over tokens: step 10 to step 40
    assert said.endswith("resume at 6.144k. skip at 10.24k. early stop at 12.29k.")
    assert page.count("<blockquote>") == 2 and "Step 30" in page
    assert "total 40" in page


def test_a_run_that_has_hardly_begun_has_a_page_too(tmp_path):
    with pytest.raises(DataError, match=r"run\.json"):
        write_page(tmp_path)
    started = {"status": "failed", "started": "x", "finished": None, "settings": {}, "summary": {}}
    (tmp_path / "run.json").write_text(json.dumps(started | {"environment": {}}))
    assert "failed" in write_page(tmp_path).read_text()

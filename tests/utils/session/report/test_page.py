import re

from utils.session.runner import start_session


def test_the_report_is_self_contained_escaped_and_complete(bench):
    session = start_session(bench.config(), bench.tools)
    page = (session.folder / "report.html").read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(""", page)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "a &lt;/blockquote&gt;" in page
    assert page.count("<svg") >= 6
    assert page.count("<svg") == page.count("<desc>")
    assert "<td>this page</td>" in page and ">running</span>" not in page
    for words in (
        "Bits per byte; dashed: what counting alone reaches",
        "bits per byte on held-out text",
        "Practice data",
        "cannot reason",
        "BoolQ",
        "not run: no data &amp; no hub",
        "0.7 to 0.9",
        "prefers-color-scheme: dark",
    ):
        assert words in page, words


def test_the_report_of_an_evaluation_leaves_out_what_was_not_trained(bench):
    run = bench.folder / "checkpoints" / "dpo"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    session = start_session(bench.config(stages=["evaluate"], minutes=10), bench.tools)
    page = (session.folder / "report.html").read_text()
    assert "Held-out preferences" in page
    assert "What this model can do" not in page
    assert "Pre-training" not in page

from rich.console import Console

from utils.session.report.closing import read_answers, stage_table, versions
from utils.session.state.folder import Session


def test_answers_come_in_the_order_of_training_and_damage_is_no_end(bench):
    session = Session.create(bench.config(), {})
    assert read_answers(session) == {}
    (session.folder / "answers.json").write_text('{"dpo": [1], "sft": [2]}')
    assert list(read_answers(session)) == ["sft", "dpo"]
    (session.folder / "answers.json").write_text("{")
    assert read_answers(session) == {}


def test_the_table_shows_planned_used_and_what_did_not_run(bench):
    session = Session.create(bench.config(), {})
    session.stage("prepare").update(planned=2.04, used=1.5, status="finished", result="9 texts")
    console = Console(width=100, record=True)
    console.print(stage_table(session.summary))
    text = console.export_text()
    assert "prepare" in text and "2.0" in text and "1.5" in text and "9 texts" in text
    assert "not run" in text


def test_versions_name_what_decides_the_numbers():
    assert {"python", "torch", "transformers", "trl"} <= set(versions())

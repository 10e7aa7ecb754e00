"""metrics.jsonl and run.json."""

from utils.files import read_json, read_lines
from utils.training.records.metrics import MetricsLog, RunRecord


def test_records_are_lines_with_step_and_time(tmp_path):
    metrics = MetricsLog(tmp_path)
    metrics.log(1, 2.0, loss=3.5, learning_rate=0.1)
    metrics.event("plan", 1, 2.5, total=10)
    assert read_lines(tmp_path / "metrics.jsonl") == [
        {"step": 1, "time_s": 2.0, "loss": 3.5, "learning_rate": 0.1},
        {"event": "plan", "step": 1, "time_s": 2.5, "total": 10},
    ]


def test_a_resume_drops_what_is_done_again_but_counts_its_time(tmp_path):
    metrics = MetricsLog(tmp_path)
    for step in (1, 2, 3):
        metrics.log(step, 10.0 * step, loss=1.0)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "ti')  # the line that the kill tore
    assert metrics.rewind(2) == 30.0
    assert [record["step"] for record in read_lines(tmp_path / "metrics.jsonl")] == [1, 2]


def test_a_resume_knows_where_the_last_validation_was_and_the_energy_so_far(tmp_path):
    metrics = MetricsLog(tmp_path)
    assert metrics.last_validation is None
    for step in (1, 2, 3):
        metrics.log(step, 10.0 * step, val_bpb=1.0, energy_wh=0.5 * step)
    metrics.log(4, 45.0, loss=1.0)
    again = MetricsLog(tmp_path)
    again.rewind(2)
    assert again.last_validation == 2 and again.used_wh == 1.5  # the work done twice counts
    again.rewind(-1)
    assert again.last_validation == 0


def test_a_run_record_tells_how_it_ended(tmp_path):
    record = RunRecord(tmp_path, "pretrain", {"seed": 1})
    record.write()
    assert read_json(tmp_path / "run.json")["status"] == "running"
    record.end("finished", steps=3)
    found = read_json(tmp_path / "run.json")
    assert found["status"] == "finished" and found["summary"] == {"steps": 3}
    assert found["finished"] >= found["started"] and found["environment"]["versions"]["torch"]

"""metrics.jsonl and run.json."""

from utils.files import read_json, read_lines
from utils.training.metrics import MetricsLog, RunRecord


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


def test_tensorboard_gets_the_same_names(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics = MetricsLog(tmp_path, tensorboard=True)
    metrics.log(1, 2.0, loss=3.5)
    metrics.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Scalars("loss")[0].value == 3.5


def test_a_run_record_tells_how_it_ended(tmp_path):
    record = RunRecord(tmp_path, "pretrain", {"seed": 1})
    record.write()
    assert read_json(tmp_path / "run.json")["status"] == "running"
    record.end("finished", steps=3)
    found = read_json(tmp_path / "run.json")
    assert found["status"] == "finished" and found["summary"] == {"steps": 3}
    assert found["finished"] >= found["started"] and found["environment"]["versions"]["torch"]

"""TensorBoard and W&B hold what metrics.jsonl holds; neither stops a run."""

import json

import pytest

from utils.files import read_json, read_lines
from utils.training.records.metrics import MetricsLog
from utils.training.records.trackers import Tracker, Trackers


def tensorboard_values(folder):
    """Return {(step, name): value} and the samples of the event files, as TensorBoard reads it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard")).Reload()
    names = found.Tags()["scalars"]
    numbers = {(one.step, name): one.value for name in names for one in found.Scalars(name)}
    texts = {
        tag.split("/")[1]: one.tensor_proto.string_val[0].decode()
        for tag in found.Tags()["tensors"]
        for one in found.Tensors(tag)
    }
    return numbers, texts


def log_records(data):
    """Yield the records of a .wandb file: LevelDB's log format behind a header of seven bytes."""
    place, part = 7, b""
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:  # no room for a header: the rest of a block is empty
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        part += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield part
            part = b""


def wandb_rows(folder):
    """Return the rows and run ids that offline runs would send, over all their processes."""
    from wandb.proto import wandb_internal_pb2

    rows, ids = [], set()
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for data in log_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "run":
                ids.add(record.run.run_id)
            if record.WhichOneof("record_type") == "history":
                items = {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }
                rows.append({k: v for k, v in items.items() if not k.startswith("_")})
    return rows, ids


def recorded(folder):
    """Return {(step, name): value} of metrics.jsonl."""
    return {
        (record["step"], name): value
        for record in read_lines(folder / "metrics.jsonl")
        if "event" not in record
        for name, value in record.items()
        if name not in ("step", "time_s") and value is not None
    }


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def test_all_three_hold_the_same_names_and_values_through_a_resume(tmp_path, offline):
    first = MetricsLog(tmp_path, tensorboard=True, wandb=True)
    first.log(0, 0.5, val_bpb=4.25)
    for step in (1, 2, 3):
        first.log(step, 1.0 * step, loss=3 / step, learning_rate=3e-3, tokens=512 * step)
    first.samples(2, 2.5, {"The": " end", "<b>": " x"})
    first.close()  # killed after step 3, resumed from step 2
    second = MetricsLog(tmp_path, tensorboard=True, wandb=True)
    second.rewind(2)
    for step in (3, 4):
        second.log(step, 5.0 + step, loss=1 / step, val_bpb=None, energy_wh=0.25)
    second.close(best_bpb=4.25)
    wanted = recorded(tmp_path)
    assert wanted[3, "loss"] == 1 / 3 and (3, "learning_rate") not in wanted
    numbers, texts = tensorboard_values(tmp_path)
    assert numbers == pytest.approx(wanted, rel=1e-6)
    assert texts == {"The": "    The end", "<b>": "    <b> x"}
    rows, ids = wandb_rows(tmp_path)
    assert ids == {read_json(tmp_path / "wandb_run.json")["id"]}
    found = {
        (row["step"], name): value  # the later row of a step done twice wins
        for row in rows
        for name, value in row.items()
        if name != "step" and not name.startswith("samples")
    }
    assert {key: found[key] for key in wanted} == wanted
    assert [row["samples.nrows"] for row in rows if "samples.nrows" in row] == [2]


class Broken(Tracker):
    """Fails where it is told to."""

    name = "Broken"

    def __init__(self, place):
        self.place, self.calls = place, []

    def _act(self, place):
        self.calls.append(place)
        if place == self.place:
            raise ValueError(f"no {place}")

    def open(self, folder, step):
        self._act("open")

    def log(self, step, numbers):
        self._act("log")

    def samples(self, step, texts):
        self._act("samples")

    def close(self, summary):
        self._act("close")


@pytest.mark.parametrize("place", ["open", "log", "samples", "close"])
def test_a_tracker_that_fails_is_left_out_and_said_once(place, tmp_path, caplog):
    broken, well = Broken(place), Broken("nowhere")
    trackers = Trackers(tmp_path, [broken, well])
    trackers.log(1, {"loss": 1.0})
    trackers.samples(1, {"a": "b"})
    trackers.log(2, {"loss": 1.0})
    trackers.close({})
    assert well.calls == ["open", "log", "samples", "log", "close"]
    assert broken.calls == well.calls[: well.calls.index(place) + 1]
    messages = [record.message for record in caplog.records]
    assert messages == [f"Broken failed (no {place}): the run goes on without it"]


def test_a_tracker_without_its_package_does_not_stop_a_run(tmp_path, offline, monkeypatch, caplog):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    metrics = MetricsLog(tmp_path, wandb=True)
    metrics.log(1, 1.0, loss=2.0)
    metrics.close()
    assert recorded(tmp_path) == {(1, "loss"): 2.0} and "W&B failed" in caplog.text

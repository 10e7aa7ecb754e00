"""Steps that go wrong: nothing of them stays, and what was decided is replayed on resume."""

import json
import math
import shutil

import pytest
import torch

from tests.utils.training.toy import bits, settings, train
from utils.data.tokens.rows import PackedDataset
from utils.errors import BudgetError, LumiError
from utils.files import read_json, read_lines
from utils.tokenizers.load import load_tokenizer
from utils.training import skipped_windows as incidents
from utils.training import trainer as trainer_module
from utils.training.checkpoints.state import TrainState
from utils.training.guard import spike_limit
from utils.training.step.loss import language_model_loss
from utils.training.step.optimizer import Optimizers

ROWS = 8
"""Rows of a toy step."""


class Killed(Exception):
    """Ends a run at once."""


def kill_at(step):
    def on_step(trainer):
        if trainer.state.step == step:
            raise Killed

    return on_step


def rows(prepared_dir, first, count):
    return PackedDataset.open(prepared_dir, "train", 32).batch(42, first, count)


def poison(monkeypatch, bad, change):
    """Change the loss of each batch that holds one of the rows `bad`."""

    def poisoned(model, ids, *rest, **form):
        loss = language_model_loss(model, ids, *rest, **form)
        is_bad = any(torch.equal(row, other) for row in ids for other in bad)
        return change(loss) if is_bad else loss

    for module in (trainer_module, incidents):
        monkeypatch.setattr(module, "language_model_loss", poisoned)


def without_rows(monkeypatch, first, count):
    """Hand out the data as if rows [first, first + count) were not there."""
    batch = PackedDataset.batch

    def shortened(self, seed, start, size):
        return batch(self, seed, start + count if start >= first else start, size)

    monkeypatch.setattr(PackedDataset, "batch", shortened)


def events(trainer, name):
    return [event for event in trainer.plan.events if event["event"] == name]


def replayed(trainer, target, cfg):
    """Train anew by the plan that `trainer` ended with: an unfinished run without checkpoints."""
    (target / "tiny").mkdir(parents=True)
    shutil.copy(trainer.run.folder / "plan.json", target / "tiny")
    record = read_json(trainer.run.folder / "run.json") | {"status": "interrupted"}
    (target / "tiny" / "run.json").write_text(json.dumps(record))
    return train(cfg.model_copy(update={"output_dir": target}))


# --- spikes -------------------------------------------------------------------------------------


def test_the_limit_of_a_loss_is_the_median_and_so_many_deviations():
    losses = [2.0] * 10 + [1.9] * 11 + [2.1] * 11  # median 2, deviations 0 or 0.1: median 0.1
    assert spike_limit(losses, 10) == pytest.approx(2.0 + 10 * 1.4826 * 0.1)
    assert spike_limit([3.0] * 32, 5) == pytest.approx(3.0 + 5 * 0.03)
    assert spike_limit([2.0] * 31, 10) == math.inf
    assert spike_limit(losses, 0) == math.inf
    one_outlier = [*losses[:-1], 1e6]
    assert spike_limit(one_outlier, 10) == spike_limit(losses, 10)


def test_a_window_with_a_spike_is_skipped_and_a_resumed_run_decides_alike(
    prepared_dir, tmp_path, monkeypatch
):
    poison(monkeypatch, rows(prepared_dir, 37 * ROWS, 1), lambda loss: loss * 20)
    changes = dict(max_steps=40, save_steps=9)
    whole = train(settings(prepared_dir, tmp_path / "a", **changes))
    assert events(whole, "skip") == [{"event": "skip", "step": 37, "rows": ROWS}]
    cfg = settings(prepared_dir, tmp_path / "b", **changes)
    with pytest.raises(Killed):
        train(cfg, kill_at(37))
    assert bits(train(cfg)) == bits(whole)
    off = train(settings(prepared_dir, tmp_path / "c", spike_threshold=0, **changes))
    assert events(off, "skip") == [] and bits(off) != bits(whole)


# --- windows whose loss is no number --------------------------------------------------------------


def test_a_window_whose_loss_is_no_number_is_as_if_it_were_not_in_the_data(
    prepared_dir, tmp_path, monkeypatch, caplog
):
    bad = rows(prepared_dir, 5 * ROWS + 3, 1)
    cfg = settings(prepared_dir, tmp_path / "a", dropout=0.1)
    with monkeypatch.context() as patched:
        poison(patched, bad, lambda loss: loss * math.nan)
        found = train(cfg)
    assert events(found, "skip") == [{"event": "skip", "step": 5, "rows": ROWS}]
    with monkeypatch.context() as patched:
        without_rows(patched, 5 * ROWS, ROWS)
        expected = train(cfg.model_copy(update={"output_dir": tmp_path / "b"}))
    assert bits(found) == bits(expected)
    report = read_json(found.run.folder / "incidents" / "step_6_row_40.json")
    assert (report["step"], report["first_row"], report["loss"]) == (6, 40, "nan")
    assert len(report["row_losses"]) == ROWS and report["row_losses"][3] == "nan"
    text = load_tokenizer(prepared_dir / "tokenizer").decode(bad[0].tolist())
    assert (report["highest"][0]["row"], report["highest"][0]["text"]) == (43, text)
    assert "step_6_row_40.json" in caplog.text
    logged = [r for r in read_lines(found.run.folder / "metrics.jsonl") if r.get("event") == "skip"]
    assert [(r["step"], r["rows"]) for r in logged] == [(5, ROWS)]
    assert bits(replayed(found, tmp_path / "c", cfg)) == bits(found)


def test_a_run_killed_after_a_skip_goes_on_to_the_same_bytes(prepared_dir, tmp_path, monkeypatch):
    poison(monkeypatch, rows(prepared_dir, 5 * ROWS, 1), lambda loss: loss * math.nan)
    whole = train(settings(prepared_dir, tmp_path / "a"))
    cfg = settings(prepared_dir, tmp_path / "b")
    with pytest.raises(Killed):
        train(cfg, kill_at(7))
    monkeypatch.undo()  # the event is replayed: the window is never looked at again
    assert bits(train(cfg)) == bits(whole)
    assert not (tmp_path / "b" / "tiny" / "incidents" / "step_6_row_48.json").exists()


def test_the_plan_is_on_the_disk_before_the_skip_takes_effect(prepared_dir, tmp_path, monkeypatch):
    poison(monkeypatch, rows(prepared_dir, 5 * ROWS, 1), lambda loss: loss * math.nan)
    cfg, batch = settings(prepared_dir, tmp_path), PackedDataset.batch

    def watched(self, seed, first, size):
        if first == 6 * ROWS and size == 4:
            plan = read_json(tmp_path / "tiny" / "plan.json")["events"]
            assert {"event": "skip", "step": 5, "rows": ROWS} in plan
            raise Killed
        return batch(self, seed, first, size)

    monkeypatch.setattr(PackedDataset, "batch", watched)
    with pytest.raises(Killed):
        train(cfg)


# --- going back -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("first_bad", "back_to"), [(6, 4), (2, 0)])
def test_bad_weights_send_the_run_back_to_its_newest_good_checkpoint(
    first_bad, back_to, prepared_dir, tmp_path, monkeypatch
):
    step, broken = Optimizers.step, []

    def breaking(self, factor):
        step(self, factor)
        count = len(broken)
        broken.append(count)
        if count == first_bad + 1:
            next(iter(self.names)).data.view(-1)[0] = math.nan

    scores = []

    def watch(trainer):
        if trainer.state.step == first_bad and not any(scores):
            trainer.validate()
        scores.append(trainer.val_bpb)

    cfg = settings(prepared_dir, tmp_path / "a")
    with monkeypatch.context() as patched:
        patched.setattr(Optimizers, "step", breaking)
        found = train(cfg, watch)
    # The first two are of the trial step; the update of step `first_bad` spoils the next one.
    skipped = ROWS * (first_bad + 1 - back_to)
    after = scores[first_bad:]  # none of what was left is shown
    assert scores[first_bad - 1] and after and not any(after)
    assert events(found, "skip") == [{"event": "skip", "step": back_to, "rows": skipped}]
    assert bits(replayed(found, tmp_path / "b", cfg)) == bits(found)
    steps = [r["step"] for r in read_lines(found.run.folder / "metrics.jsonl") if "loss" in r]
    assert steps == sorted(set(steps))


def test_three_bad_windows_in_a_row_send_the_run_back(prepared_dir, tmp_path, monkeypatch):
    bad = rows(prepared_dir, 6 * ROWS, 3 * ROWS)[::ROWS]
    poison(monkeypatch, bad, lambda loss: loss * math.nan)
    cfg = settings(prepared_dir, tmp_path / "a", save_steps=5)
    found = train(cfg)
    assert [(e["step"], e["rows"] // ROWS) for e in events(found, "skip")] == [
        (6, 1), (6, 1), (5, 4),
    ]  # fmt: skip
    assert bits(replayed(found, tmp_path / "b", cfg)) == bits(found)


def test_a_checkpoint_with_bad_weights_is_passed_over_and_left(
    prepared_dir, tmp_path, monkeypatch, caplog
):
    def spoil(trainer):
        if trainer.state.step == 8 and not (trainer.run.folder / "step_8").exists():
            next(trainer.model.parameters()).data.view(-1)[0] = math.nan
            spoiled.append(8)

    spoiled = []
    cfg = settings(prepared_dir, tmp_path)
    found = train(cfg, lambda trainer: spoil(trainer) if not spoiled else None)
    assert events(found, "skip") == [{"event": "skip", "step": 4, "rows": 5 * ROWS}]
    assert "step_8: not all of its weights are finite" in caplog.text
    assert (found.run.folder / "left-step_8").is_dir()
    assert TrainState.read(found.run.folder / "step_8").step == 8


def test_endless_trouble_ends_with_one_line(prepared_dir, tmp_path, monkeypatch):
    def nothing_is_a_number(model, ids, *rest, **form):
        return language_model_loss(model, ids, *rest, **form) * math.nan

    monkeypatch.setattr(trainer_module, "language_model_loss", nothing_is_a_number)
    with pytest.raises(LumiError, match=r"^step \d+: the loss is nan.*after 5 windows.*lower"):
        train(settings(prepared_dir, tmp_path))
    assert len(list((tmp_path / "tiny" / "incidents").iterdir())) == 5


# --- memory ---------------------------------------------------------------------------------------


def test_memory_that_runs_out_in_the_middle_halves_the_micro_batch(
    prepared_dir, tmp_path, monkeypatch, caplog
):
    errors = {
        (3, 4): torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        (6, 2): RuntimeError("[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't "
                             "allocate memory: you tried to allocate 9 bytes. Error code 12"),
        (9, 1): MemoryError(),
    }  # fmt: skip

    def failing(model, ids, *rest, **form):
        loss = language_model_loss(model, ids, *rest, **form)
        if error := errors.pop((running.state.step, len(ids)), None):
            loss.backward()  # what the failed step has already summed must not stay
            raise error
        return loss

    def remember(trainer):
        nonlocal running
        running = trainer

    running = type("Before", (), {"state": TrainState()})
    cfg = settings(prepared_dir, tmp_path / "a", dropout=0.1)
    with monkeypatch.context() as patched:
        patched.setattr(trainer_module, "language_model_loss", failing)
        found = train(cfg, remember)
    assert errors == {}
    assert [(e["step"], e["micro_batch"]) for e in events(found, "micro_batch")] == [
        (0, 4), (3, 2), (6, 1),
    ]  # fmt: skip
    assert [e["step"] for e in events(found, "gradient_checkpointing")] == [9]
    assert "step 4: micro-batch 2 instead of 4, the global batch stays" in caplog.text
    again = replayed(found, tmp_path / "b", cfg)
    assert bits(again) == bits(found) and again.state.micro_batch == 1
    assert again.model.is_activation_checkpointing


def test_one_row_that_does_not_fit_is_an_error(prepared_dir, tmp_path, monkeypatch):
    def full(model, ids, *rest, **form):
        raise MemoryError

    monkeypatch.setattr(trainer_module, "language_model_loss", full)
    with pytest.raises(BudgetError, match="one row of 32 tokens does not fit"):
        train(settings(prepared_dir, tmp_path))


def test_an_error_that_is_not_about_memory_stays_one(prepared_dir, tmp_path, monkeypatch):
    def broken(model, ids, *rest, **form):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(trainer_module, "language_model_loss", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        train(settings(prepared_dir, tmp_path))


def test_an_update_that_runs_out_of_memory_half_way_is_undone(prepared_dir, tmp_path, monkeypatch):
    step, calls = Optimizers.step, []

    def failing(self, factor):
        calls.append(factor)
        if len(calls) == 8:  # the seventh step, the trial step counted
            self.members[0][0].step()
            raise torch.OutOfMemoryError("CUDA out of memory")
        step(self, factor)

    cfg = settings(prepared_dir, tmp_path / "a")
    with monkeypatch.context() as patched:
        patched.setattr(Optimizers, "step", failing)
        found = train(cfg)
    sizes = [(e["step"], e["micro_batch"]) for e in events(found, "micro_batch")]
    assert sizes == [(0, 4), (4, 2)]
    assert bits(replayed(found, tmp_path / "b", cfg)) == bits(found)

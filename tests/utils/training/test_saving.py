"""Saves in the background: the same bytes, one at a time, no error lost."""

import threading
import time

import pytest
import torch
from safetensors.torch import save_file

from tests.utils.training.saves import CARD, go_on, toy_parts, toy_saver
from utils.errors import BudgetError, DiskFull
from utils.files import folder_damage, read_json
from utils.model.checkpoints import save_model_files
from utils.time_box import Clock
from utils.training import saving
from utils.training.checkpoints import host_copy as snapshot
from utils.training.checkpoints.state import TrainState, load_checkpoint, read_step, resumable
from utils.training.schedule.plan import StepBudget


class SlowWrites(threading.Event):
    """Holds the writer back until it is set; each write takes WRITE_S of a clock of its own."""

    def __init__(self):
        super().__init__()
        self.now_s = 0.0
        self.order = []
        """What began and ended, in turn."""

    def monotonic(self):
        return self.now_s


WRITE_S = 7.0


@pytest.fixture
def slow_writes(monkeypatch):
    """The event that lets the writer go on."""
    gate, real = SlowWrites(), saving.save_checkpoint

    def held(folder, *args):
        gate.order.append(f"{folder.name} begins")
        assert gate.wait(20)
        gate.now_s += WRITE_S
        real(folder, *args)
        gate.order.append(f"{folder.name} ends")

    monkeypatch.setattr(saving, "save_checkpoint", held)
    monkeypatch.setattr(saving, "time", gate)
    return gate


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_save_in_the_background_has_the_bytes_of_one_in_the_foreground(
    tmp_path, tokenizer_dir, slow_writes
):
    saver = toy_saver(tmp_path / "run", tokenizer_dir)
    with saver.run.writer:
        saver.save("step_1")
        before = saver.state.elapsed_s
        model, optimizers = toy_parts()  # the same weights as at step 1
        for step in (2, 3):
            go_on(saver, step)  # while the write is held back
        slow_writes.set()
    again = toy_saver(tmp_path / "again", tokenizer_dir)
    again.clock = type("Stopped", (), {"elapsed_s": lambda self: before})()
    again.save("step_1", wait=True)
    there = bytes_of(tmp_path / "run" / "step_1")
    assert there == bytes_of(tmp_path / "again" / "step_1")
    plain = tmp_path / "plain"
    save_model_files(model, plain, tokenizer_dir=tokenizer_dir, card=CARD)
    save_file(optimizers.tensors(), plain / "optimizer.safetensors")
    for name, data in bytes_of(plain).items():
        assert there[name] == data, name
    assert set(there) - set(bytes_of(plain)) == {"state.json", "manifest.json"}


def test_training_goes_on_while_it_is_written(tmp_path, tokenizer_dir, slow_writes):
    saver = toy_saver(tmp_path, tokenizer_dir)
    with saver.run.writer:
        saver.save("step_1")
        assert not (tmp_path / "step_1").exists()
        slow_writes.set()
    assert folder_damage(tmp_path / "step_1") is None


def test_one_write_at_a_time_and_each_step_is_saved(tmp_path, tokenizer_dir, slow_writes):
    saver = toy_saver(tmp_path, tokenizer_dir)
    with saver.run.writer:
        saver.save("step_1")
        go_on(saver, 2)
        threading.Timer(0.2, slow_writes.set).start()
        saver.save("step_2")
        slow_writes.order.append("save of step_2 returns")
    order = slow_writes.order
    assert order[:2] == ["step_1 begins", "step_1 ends"]  # the second save waited for the first
    assert order.index("step_1 ends") < order.index("save of step_2 returns")
    assert [read_json(path / "state.json")["step"] for path in resumable(tmp_path)] == [2, 1]


def test_what_minutes_ask_for_is_put_off_while_one_is_written(tmp_path, tokenizer_dir, slow_writes):
    saver = toy_saver(tmp_path, tokenizer_dir, save_minutes=1e-9, save_steps=10**6)
    with saver.run.writer:
        saver.is_due(None)
        saver.run.writer.wait()  # for what is prepared beforehand
        assert saver.is_due(None)
        saver.save("step_1")
        assert not saver.is_due(None)
        slow_writes.set()
        saver.run.writer.wait()
        assert saver.is_due(None)


def test_best_and_step_of_one_moment_are_written_once(tmp_path, tokenizer_dir):
    saver = toy_saver(tmp_path, tokenizer_dir)
    with saver.run.writer:
        saver.keep_best(2.0)
        saver.save("step_1")
        go_on(saver, 2)
        saver.keep_best(2.5)
        saver.keep_best(float("nan"))
        saver.save("step_2")
    inode = {
        name: (tmp_path / name / "model.safetensors").stat().st_ino for name in names(tmp_path)
    }
    assert inode["best"] == inode["step_1"] != inode["step_2"]
    assert all(folder_damage(tmp_path / name) is None for name in inode)


def names(run):
    return sorted(path.name for path in run.iterdir())


def test_a_replayed_step_is_not_taken_for_the_one_before(tmp_path, tokenizer_dir):
    saver = toy_saver(tmp_path, tokenizer_dir)
    with saver.run.writer:
        saver.keep_best(2.0)
        go_on(saver, 1)
        saver.plan.events.append({"event": "skip", "step": 0, "rows": 8})
        saver.save("step_1")
    weights = torch.nn.utils.parameters_to_vector(saver.model.parameters())
    model, optimizers = toy_parts(seed=7)
    load_checkpoint(tmp_path / "step_1", model, optimizers)
    assert torch.equal(torch.nn.utils.parameters_to_vector(model.parameters()), weights)


def test_an_error_of_the_writer_is_raised_at_the_next_step(tmp_path, tokenizer_dir, monkeypatch):
    saver = toy_saver(tmp_path, tokenizer_dir)
    with saver.run.writer:
        saver.save("step_1")
        saver.run.writer.wait()
        go_on(saver, 2)

        def full(*args):
            raise DiskFull("disk full while writing")

        monkeypatch.setattr(saving, "save_checkpoint", full)
        saver.save("step_2")
        while saver.run.writer.is_busy:
            time.sleep(0.001)
        with pytest.raises(DiskFull):
            saver.is_due(None)
    assert names(tmp_path) == ["step_1"]


def test_without_memory_for_a_copy_it_is_written_at_once_and_said_once(
    tmp_path, tokenizer_dir, monkeypatch, caplog
):
    available = type("Memory", (), {"available": 1000})
    monkeypatch.setattr(snapshot.psutil, "virtual_memory", lambda: available)
    saver = toy_saver(tmp_path, tokenizer_dir)
    with saver.run.writer:
        for step in (1, 2):
            go_on(saver, step)
            saver.save(f"step_{step}")
            assert not saver.run.writer.is_busy
            assert folder_damage(tmp_path / f"step_{step}") is None
    assert caplog.text.count("no memory for a copy") == 1


def test_the_end_is_on_the_disk_and_best_is_the_same_where_it_is(tmp_path, tokenizer_dir):
    saver = toy_saver(tmp_path, tokenizer_dir)
    with saver.run.writer:
        saver.keep_best(3.0)
        go_on(saver, 2)
        final = saver.finish(2.9)
        assert folder_damage(final) is None and folder_damage(tmp_path / "best") is None
        assert bytes_of(final) == bytes_of(tmp_path / "best")
        assert read_json(final / "state.json")["best_step"] == 2


def test_rotation_and_every_nth(tmp_path, tokenizer_dir):
    saver = toy_saver(tmp_path, tokenizer_dir, save_total_limit=2, keep_every=3, save_steps=2)
    with saver.run.writer:
        for step in range(1, 10):
            go_on(saver, step)
            if saver.is_due(9):
                saver.save(f"step_{step}")
        saver.finish(2.0)
    assert names(tmp_path) == ["best", "final", "step_3", "step_4", "step_6", "step_8"]


def test_a_budget_holds_at_every_moment(tmp_path, tokenizer_dir):
    saver = toy_saver(tmp_path, tokenizer_dir)
    with saver.run.writer:
        saver.save("step_1", wait=True)
    size = sum(path.stat().st_size for path in (tmp_path / "step_1").iterdir())
    assert size < saving.Content.of(saver.model, saver.optimizers, saver.state).num_bytes
    limit = (3 * size + 2_100_000) / 1e9
    saver = toy_saver(tmp_path, tokenizer_dir, save_total_limit=9, disk_budget_gb=limit)
    with saver.run.writer:
        for step in range(2, 8):
            go_on(saver, step)
            saver.save(f"step_{step}")
            saver.run.writer.wait()
            used = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
            assert used <= 1e9 * limit
    assert len(names(tmp_path)) >= 3
    saver = toy_saver(tmp_path, tokenizer_dir, disk_budget_gb=size / 1e9)
    with saver.run.writer:
        go_on(saver, 9)
        with pytest.raises(BudgetError, match="--disk_budget_gb"):
            saver.save("step_9", wait=True)
    assert folder_damage(tmp_path / "step_7") is None


def test_a_time_box_knows_the_stall_and_the_whole_save(tmp_path, tokenizer_dir, slow_writes):
    box = StepBudget(3600, Clock())
    saver = toy_saver(tmp_path, tokenizer_dir, box=box)
    with saver.run.writer:
        saver.save("step_1")
        assert (box.save_s, box.stall_s) == (1.0, 0.0)  # the write is not measured yet
        slow_writes.set()
        saver.run.writer.wait()
        assert not saver.is_due(None)
        assert box.save_s == WRITE_S
        box.save_s = 2 * WRITE_S
        saver.finish(2.0)
        assert box.save_s == pytest.approx(0.7 * 2 * WRITE_S)  # a slow one is forgotten in steps


def test_near_the_end_of_a_box_no_save_is_begun(tmp_path, tokenizer_dir):
    box = StepBudget(60, Clock(born=time.monotonic()), save_s=10.0)
    saver = toy_saver(tmp_path, tokenizer_dir, box=box, save_steps=1)
    with saver.run.writer:
        assert saver.is_due(None)
        box.budget_s = box.clock.elapsed_s() + box.reserve_s + 9.0
        assert not saver.is_due(None)


def test_going_back_beyond_the_best_forgets_it(tmp_path, tokenizer_dir):
    saver = toy_saver(tmp_path, tokenizer_dir)
    with saver.run.writer:
        go_on(saver, 4)
        saver.keep_best(2.0)
        saver.save("step_4", wait=True)
        go_on(saver, 6)
        saver.keep_best(1.5)
        saver.run.writer.wait()
        saver.take_state(TrainState(step=4, best_step=4, best_bpb=2.0))
        saver.leave_later()
        assert names(tmp_path) == ["left-best", "step_4"]
        assert saver.state.best_bpb is None
        saver.finish(2.5)
    assert read_step(tmp_path / "best") == 4


def test_what_is_linked_rotates_too(tmp_path, tokenizer_dir):
    saver = toy_saver(tmp_path, tokenizer_dir, save_total_limit=2)
    with saver.run.writer:
        for step in (1, 2, 3):
            go_on(saver, step)
            saver.keep_best(3.0 - step / 10)
            saver.save(f"step_{step}", wait=True)
    assert names(tmp_path) == ["best", "step_2", "step_3"]

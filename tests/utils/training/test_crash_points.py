"""A kill, a loss of power or an error of the disk at every operation of a save."""

import errno
import hashlib
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.utils.training.disk_layer import (
    ERRORS,
    DiskLayer,
    Killed,
    PowerLoss,
    fail_at,
    kill_at,
    lay_out,
)
from tests.utils.training.saves import toy_saver
from utils.errors import LumiError
from utils.files import folder_damage, read_json
from utils.training.checkpoints.rotation import clear_leftovers
from utils.training.checkpoints.state import resumable


@pytest.fixture
def saver(tmp_path, tokenizer_dir):
    saver = toy_saver(tmp_path / "never", tokenizer_dir, save_total_limit=2)
    saver._description = {"config.json": b"{}\n", "tokenizer.json": b"{}\n" * 50}
    with saver.run.writer:
        yield saver


def stand_at(saver, step, best=None):
    """Let the saver hold the weights of `step`, which tell it."""
    saver.state.step, saver.state.best_step, saver.state.best_bpb = step, best, best and 9.0
    saver._newest = None
    with torch.no_grad():
        saver.model.model.embed_tokens.weight[0, 0] = step


def save_at(saver, step, *names):
    stand_at(saver, step)
    for name in names or (f"step_{step}",):
        saver.save(name, wait=True)


SITUATIONS = {
    "the first save": ((), lambda saver: save_at(saver, 2)),
    "a save with rotation": ((1, 2, "best"), lambda saver: save_at(saver, 3)),
    "a better one": ((2, "best"), lambda saver: save_at(saver, 4, "best", "step_4")),
    "the end": (
        (1, "best", "final"),
        lambda saver: (stand_at(saver, 5, best=1), saver.finish(8.0)),
    ),
    "a branch that is left": ((1, 8, "best", "final"), lambda saver: save_at(saver, 2)),
}


ALWAYS = "a save with rotation"
PARAMETERS = [
    name if name == ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in SITUATIONS
]


@pytest.fixture(params=PARAMETERS)
def situation(request, saver, tmp_path):
    """(parent of the run folder before the save, the save)."""
    there, save = SITUATIONS[request.param]
    saver.run.folder = tmp_path / "before" / "run"
    for name in there:
        steps = [number for number in there if isinstance(number, int)]
        stand_at(saver, name if isinstance(name, int) else steps[-1])
        saver.save(f"step_{name}" if isinstance(name, int) else name, wait=True)
    (tmp_path / "before").mkdir(exist_ok=True)
    return tmp_path / "before", save


def whole_step(run):
    """The step that a resume goes on from, None for the beginning; its files are whole."""
    found = next(resumable(run), None) if run.is_dir() else None
    if found is None:
        return None
    step = read_json(found / "state.json")["step"]
    table = load_file(found / "model.safetensors")["model.embed_tokens.weight"]
    assert table[0, 0].item() == step and folder_damage(found) is None
    return step


def recovered(run):
    """What the next run finds, which clears up first."""
    if run.is_dir():
        clear_leftovers(run)
        assert not hidden(run)
    return whole_step(run)


def hidden(run):
    return sorted(path.name for path in run.iterdir() if path.name[0] == ".")


def record(saver, before, save, monkeypatch):
    """Return (the operations, steps before and after) of an undisturbed save."""
    saver.run.folder = before.parent / "recorded" / "run"
    shutil.copytree(before, before.parent / "recorded")
    old = whole_step(saver.run.folder)
    with DiskLayer(before.parent / "recorded")(monkeypatch) as layer:
        save(saver)
    assert not hidden(saver.run.folder)
    return layer.log, old, whole_step(saver.run.folder)


def again(saver, before, number):
    """Give the saver a fresh copy of the run folder."""
    place = before.parent / f"again_{number}"
    shutil.copytree(before, place)
    saver.run.folder = place / "run"
    return place


def test_a_kill_at_every_operation(situation, saver, monkeypatch):
    before, save = situation
    log, old, new = record(saver, before, save, monkeypatch)
    assert old != new and len(log) > 60
    for number in range(len(log)):
        place = again(saver, before, number)
        with DiskLayer(place, kill_at(number))(monkeypatch), pytest.raises(Killed):
            save(saver)
        assert recovered(place / "run") in (old, new, *went_back(old, new)), log[number]
        shutil.rmtree(place)


def went_back(old, new):
    """A branch is left before the save: then the step that was gone back to is the newest."""
    return (1,) if old is not None and old > new else ()


@pytest.mark.slow
def test_a_loss_of_power_at_every_operation(situation, saver, monkeypatch, tmp_path):
    before, save = situation
    log, old, new = record(saver, before, save, monkeypatch)
    shutil.move(before, tmp_path / "disk")
    loss, chance, seen = PowerLoss(tmp_path / "disk"), random.Random(0), set()
    for number, op in enumerate(log):
        name, *paths, data = op
        moved = [path.replace(str(tmp_path / "recorded"), str(loss.root)) for path in paths]
        loss.do((name, *moved, data))
        for disk in loss.disks(chance):
            key = hashlib.sha256(repr(sorted(disk.items())).encode()).digest()
            if key in seen:
                continue
            seen.add(key)
            place = lay_out(disk, tmp_path / f"disk_{len(seen)}")
            allowed = (new,) if number == len(log) - 1 else (old, new, *went_back(old, new))
            assert recovered(place / "run") in allowed, (number, op[:2])
            shutil.rmtree(place, ignore_errors=True)
    assert len(seen) > 30


@pytest.mark.parametrize("code", ERRORS, ids=lambda code: errno.errorcode[code])
def test_an_error_at_every_operation(code, situation, saver, monkeypatch):
    before, save = situation
    log, old, new = record(saver, before, save, monkeypatch)
    raised = 0
    for number in range(len(log)):
        place = again(saver, before, number)
        with DiskLayer(place, fail_at(number, code))(monkeypatch):
            try:
                save(saver)
            except LumiError as error:
                raised += 1
                assert "\n" not in str(error) and str(place) in str(error)
        run = place / "run"
        assert not run.is_dir() or not hidden(run), (number, log[number])
        assert whole_step(run) in (old, new, *went_back(old, new)), log[number]
        save(saver)  # the error was of this once
        assert whole_step(run) == new
        shutil.rmtree(place)
    assert raised > 0.8 * len(log)

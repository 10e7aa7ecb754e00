"""A flipped bit in any file is found by name; a hostile file in any place runs nothing."""

import json
import pickle
import random
import shutil
from pathlib import Path

import pytest

from tests.utils.training.saves import toy_parts, toy_saver
from utils.errors import CheckpointError, LumiError
from utils.files import write_manifest
from utils.model.checkpoints import load_model
from utils.training.checkpoints.state import check_tokenizer, load_checkpoint, resumable
from utils.training.run import find_resume

OURS = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tokenizer_dir):
    saver = toy_saver(tmp_path_factory.mktemp("saved"), tokenizer_dir)
    with saver.run.writer:
        return saver.save("step_1", wait=True)


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run" / "step_1")


def test_a_flipped_bit_in_any_file_is_found_by_name(saved, tmp_path):
    names = sorted(path.name for path in saved.iterdir())
    assert set(OURS) < set(names) and len(names) > 8
    chance = random.Random(1)
    for name in names:
        for place in range(3):
            folder = shutil.copytree(saved, tmp_path / f"{name}_{place}" / "step_1")
            data = bytearray((folder / name).read_bytes())
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            (folder / name).write_bytes(data)
            if name == "manifest.json" and json_or_none(data) == json_or_none(
                (saved / name).read_bytes()
            ):
                continue  # a blank became another one
            with pytest.raises(CheckpointError, match=name) as caught:
                load_checkpoint(folder, *toy_parts())
            assert "\n" not in str(caught.value)
            assert list(resumable(folder.parent)) == []


def json_or_none(data):
    try:
        return json.loads(bytes(data))
    except ValueError:
        return None


class Bomb:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (self.canary,))


def hostile(canary: Path) -> dict[str, bytes]:
    """Contents that run something where they are trusted, or lead a reader astray."""
    code = f"import pathlib\npathlib.Path({str(canary)!r}).touch()\n"
    remote = {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    remote |= {"model_type": "evil", "trust_remote_code": True, "architectures": ["Evil"]}
    huge = {"format": 1, "step": 10**400, "files": {"state.json": {"bytes": 10**400}}}
    return {
        "pickle": pickle.dumps(Bomb(canary)),
        "python": code.encode(),
        "remote code": json.dumps(remote).encode(),
        "jinja": b"{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "yaml": f"!!python/object/apply:pathlib.Path.touch [{canary}]".encode(),
        "deep": b"[" * 200_000,
        "deep object": b'{"a":' * 200_000,
        "digits": b'{"format": 1, "step": ' + b"9" * 10_000 + b"}",
        "huge": json.dumps(huge).encode(),
        "types": b'{"format": [], "files": [], "step": {}, "settings": 3}',
        "list": b"[]",
        "nothing": b"",
        "header": (2**62).to_bytes(8, "little") + b"{}",
        "bytes": bytes(range(256)) * 8,
    }


@pytest.mark.parametrize("kind", hostile(Path("x")))
def test_a_hostile_file_in_any_place_runs_nothing(kind, folder, saved, tmp_path):
    canary = tmp_path / "canary"
    data = hostile(canary)[kind]
    whole = {path.name: path.read_bytes() for path in saved.iterdir()}
    (folder / "evil.py").write_bytes(hostile(canary)["python"])  # for what refers to code
    parts = toy_parts()
    for name in whole:
        (folder / name).write_bytes(data)
        if name != "manifest.json":
            write_manifest(folder, kind="checkpoint", step=1)  # the hashes agree
        try:
            check_tokenizer(folder, "0")
            load_checkpoint(folder, *parts)
            assert name not in OURS
        except CheckpointError as error:
            assert "\n" not in str(error) and name in (*OURS, "lumi.json")
        list(resumable(folder.parent))
        for source, content in whole.items():
            (folder / source).write_bytes(content)
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["pickle", "python", "remote code", "deep", "types", "header"])
def test_no_reader_of_models_runs_it_either(kind, folder, saved, tmp_path):
    canary = tmp_path / "canary"
    data = hostile(canary)[kind]
    whole = {path.name: path.read_bytes() for path in saved.iterdir()}
    (folder / "evil.py").write_bytes(hostile(canary)["python"])
    for name in sorted(set(whole) - {"manifest.json", "optimizer.safetensors", "state.json"}):
        (folder / name).write_bytes(data)
        write_manifest(folder, kind="checkpoint", step=1)
        try:
            load_model(folder)
        except LumiError as error:
            assert "\n" not in str(error)
        (folder / name).write_bytes(whole[name])
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(canary)))
    (folder / "model.safetensors").unlink()
    write_manifest(folder, kind="checkpoint", step=1)
    with pytest.raises(CheckpointError):
        load_model(folder)
    assert not canary.exists()


def test_a_file_that_the_manifest_does_not_name_is_not_opened(folder, tmp_path):
    (folder / "notes.txt").write_text("mine")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "canary")))
    (folder / "scheduler.pt").symlink_to("/dev/zero")
    assert load_checkpoint(folder, *toy_parts()).step == 1
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["../../outside", "/etc/hostname", "a/../../../outside", "a\0b"])
def test_a_manifest_that_names_a_file_outside_is_refused(name, folder, tmp_path):
    (tmp_path / "outside").write_text("secret")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": 6, "sha256": "0" * 64}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"manifest\.json: damaged|missing"):
        load_checkpoint(folder, *toy_parts())


@pytest.mark.parametrize("name", OURS)
def test_a_link_to_something_else_is_refused_by_name(name, folder, tmp_path):
    (tmp_path / "outside").write_text("secret")
    (folder / name).unlink()
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(folder, *toy_parts())
    assert (tmp_path / "outside").read_text() == "secret"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", -1), ("step", True), ("step", "3"), ("step", 2**64), ("step", 1.5),
        ("tokens", None), ("best_bpb", []), ("micro_batch", {}), ("settings_hash", 3),
        ("elapsed_s", -5), ("elapsed_s", float("nan")), ("elapsed_s", float("inf")),
        ("fast_paths", []), ("events", {}), ("events", [3]), ("events", [{"event": "plan"}]),
        ("events", [{"event": "plan", "step": 0, "total": "9"}]),
        ("events", [{"event": 1, "step": 0}]),
    ],
)  # fmt: skip
def test_a_state_of_wrong_types_is_one_line_and_walked_past(key, value, folder):
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {key: value}))
    write_manifest(folder, kind="checkpoint", step=1)
    with pytest.raises(CheckpointError, match=rf"state\.json is damaged \({key}") as caught:
        load_checkpoint(folder, *toy_parts())
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        find_resume(folder.parent)

"""Fixtures shared by the whole suite: real inputs, as small as they can be."""

import contextlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

# Before torch is imported: small models are fastest on one thread, and two suites may share a box.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import numpy as np
import pytest

from utils.files import atomic_folder, write_manifest
from utils.tokenizers.control_tokens import EOS_ID
from utils.tokenizers.load import load_tokenizer
from utils.tokenizers.training import train_tokenizer

ROOT = Path(__file__).resolve().parents[1]
VOCAB_SIZE = 600
STDLIB_MODULES = (
    "argparse collections datetime json logging os pathlib random statistics string subprocess "
    "textwrap threading typing"
)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Public corpora beside the checkout, for those who have them."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


def _run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **(options.pop("env", None) or {})}
    return subprocess.run(command, capture_output=True, text=True, env=env, **options)


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a numbered script as a user does: `run_script("02_pretrain", "--seed", 1)`."""

    def run(stage, *flags, cwd=tmp_path, env=None, timeout=120, stdin=None):
        command = [sys.executable, str(ROOT / "scripts" / f"{stage}.py"), *map(str, flags)]
        return _run(command, cwd=cwd, env=env, timeout=timeout, input=stdin)

    return run


@pytest.fixture
def run_module(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m MODULE FLAGS` in a scratch folder."""

    def run(module, *flags, cwd=tmp_path, env=None, timeout=120, stdin=None):
        command = [sys.executable, "-m", module, *map(str, flags)]
        return _run(command, cwd=cwd, env=env, timeout=timeout, input=stdin)

    return run


@pytest.fixture
def load_script() -> Callable[[str], ModuleType]:
    """Import a numbered script: `load_script("02_pretrain").main(cfg)`."""
    return lambda stage: importlib.import_module(f"scripts.{stage}")


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Two hundred real documents: docstrings of the standard library."""
    documents = []
    for name in STDLIB_MODULES.split():
        module = importlib.import_module(name)
        for attribute in sorted(vars(module)):
            value = getattr(module, attribute)
            with contextlib.suppress(AttributeError):
                if isinstance(value.__doc__, str) and len(value.__doc__) >= 80:
                    documents.append(f"{name}.{attribute}\n\n{value.__doc__.strip()}")
    return list(dict.fromkeys(documents))[:200]


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """A SentencePiece tokenizer of 600 pieces with its Hugging Face files."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(texts, folder, VOCAB_SIZE)
    return folder


@pytest.fixture(scope="session")
def prepared_dir(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], tokenizer_dir: Path
) -> Path:
    """A prepared data folder in the format of stage 01: two training shards, one for validation."""
    target = tmp_path_factory.mktemp("processed") / "docs"
    tokenizer = load_tokenizer(tokenizer_dir)
    cut = len(texts) * 9 // 10
    shards = {"train_00000": texts[: cut // 2], "train_00001": texts[cut // 2 : cut]}
    shards["val_00000"] = texts[cut:]
    splits: dict[str, dict] = {}
    with atomic_folder(target) as folder:
        (folder / "tokens").mkdir()
        for path in tokenizer_dir.iterdir():
            (folder / "tokenizer").mkdir(exist_ok=True)
            (folder / "tokenizer" / path.name).write_bytes(path.read_bytes())
        for name, documents in shards.items():
            _write_shard(folder, name, documents, tokenizer, splits)
        (folder / "stats.json").write_text("{}")
    manifest = {
        "kind": "dataset",
        "name": "docs",
        "settings_hash": "0" * 16,
        "input_hash": "0" * 16,
        "tokenizer_sha256": tokenizer.sha256,
        "vocab_size": VOCAB_SIZE,
        "token_dtype": "uint16",
        "sequence_length": 128,
        "splits": splits,
    }
    write_manifest(target, **manifest)
    return target


def _write_shard(folder, name, documents, tokenizer, splits) -> None:
    split = splits.setdefault(
        name.split("_")[0],
        {"documents": 0, "tokens": 0, "text_bytes": 0, "text_shards": [], "token_shards": []},
    )
    rows = [
        json.dumps({"id": f"{name}-{number}", "text": text, "source": "python"})
        for number, text in enumerate(documents)
    ]
    (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    ids = [[*tokenizer.encode(text), EOS_ID] for text in documents]
    offsets = np.cumsum([0] + [len(row) for row in ids])
    np.concatenate([np.array(row, "<u2") for row in ids]).tofile(folder / "tokens" / f"{name}.bin")
    offsets.astype("<u8").tofile(folder / "tokens" / f"{name}.idx")
    split["documents"] += len(documents)
    split["tokens"] += int(offsets[-1])
    split["text_bytes"] += sum(len(text.encode()) for text in documents)
    split["text_shards"].append(f"{name}.jsonl")
    split["token_shards"].append(f"tokens/{name}.bin")


@pytest.fixture(scope="session")
def checkpoint_dir(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> Path:
    """A random chat checkpoint: 2 layers, width 64, 2 heads, context 128, template chatml."""
    from utils.config.model import ModelConfig
    from utils.model.architecture import build_model
    from utils.model.checkpoints import save_model_files

    config = ModelConfig(
        model_name="toy", n_layer=2, d_model=64, n_head=2, d_ff=128,
        vocab_size=VOCAB_SIZE, sequence_length=128,
    )  # fmt: skip
    target = tmp_path_factory.mktemp("checkpoints") / "toy" / "final"
    card = {
        "stage": "sft",
        "template": "chatml",
        "tokenizer_sha256": load_tokenizer(tokenizer_dir).sha256,
        "settings": config.model_dump(mode="json"),
        "parent": None,
        "dataset": "docs",
    }
    with atomic_folder(target) as folder:
        save_model_files(build_model(config), folder, tokenizer_dir=tokenizer_dir, card=card)
    return target

from pathlib import Path

import pytest

from utils.config.session import SessionConfig
from utils.session.plan import check_settings
from utils.session.runner import start_session
from utils.session.state.corpus import find_corpus
from utils.session.state.stages import stage_command

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted((ROOT / "sessions").glob("*.json"))


def test_the_six_sessions_ship():
    assert [path.stem for path in FILES] == [
        "architecture", "debug", "evaluation", "experiment", "prototype", "quick",
    ]  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shipped_session_is_valid_and_can_start_here(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = SessionConfig.build(SessionConfig.read_file(path))
    assert config.name == path.stem
    check_settings(config)


def test_boxes_are_those_of_the_documents():
    boxes = {path.stem: SessionConfig.read_file(path)["minutes"] for path in FILES}
    assert boxes == {
        "quick": 30, "prototype": 120, "experiment": 240, "evaluation": 60, "debug": None,
        "architecture": 30,
    }  # fmt: skip


def test_the_stages_are_called_with_flags_that_they_know(bench):
    from utils.config.variables import STAGE_CONFIGS

    called: dict[str, list[str]] = {}

    def command(stage, context, minutes):
        called[stage] = stage_command(stage, context, minutes)
        return bench.command(stage, context, minutes)

    from utils.session.runner import Tools

    start_session(bench.config(), Tools(command, bench.tools.measure))
    for stage, config in STAGE_CONFIGS.items():
        cfg = config.from_cli(called[stage][3 if "-m" in called[stage] else 2 :])
        if stage in ("pretrain", "sft", "dpo", "evaluate"):
            assert cfg.max_minutes > 0.3
    assert "--vocab_size" not in called["prepare"]  # pydocs.json has the planned one already


def test_another_tokenizer_gets_a_prepared_folder_of_its_own(bench):
    corpus = find_corpus(bench.config())
    assert corpus.folder(8192) == Path("data/processed/pydocs")
    assert corpus.folder(4096) == Path("data/processed/pydocs-4096")


def test_own_texts_are_measured_and_named_after_their_folder(bench):
    texts = bench.folder / "my texts"
    texts.mkdir()
    (texts / "a.txt").write_text("x" * 3000)
    corpus = find_corpus(bench.config(source=texts))
    assert corpus.raw_bytes == 3000
    assert corpus.settings == {"input_path": texts}
    assert corpus.folder(1024).name == "my texts-1024"

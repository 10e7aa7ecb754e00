"""Every command in the documents parses, every shipped config validates, every link leads on."""

import importlib.util
import re
import runpy
import shlex
from pathlib import Path

import pytest

from utils.config.base import StageConfig, read_config_file
from utils.config.dpo import DPOConfig
from utils.config.evaluate import EvaluateConfig
from utils.config.filters import FilterProfile
from utils.config.prepare import PrepareConfig
from utils.config.pretrain import PretrainConfig
from utils.config.serve import ServeConfig
from utils.config.session import SessionConfig
from utils.config.sft import SFTConfig
from utils.config.variables import known_variables

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MOST_COLUMNS = 120
"""Of a line of text; rows of tables, code and lines of one long word may be longer."""
STAGES: dict[str, type[StageConfig]] = {
    "01_prepare_data": PrepareConfig,
    "02_pretrain": PretrainConfig,
    "03_sft": SFTConfig,
    "04_dpo": DPOConfig,
    "05_evaluate": EvaluateConfig,
    "06_serve": ServeConfig,
}
CONTRACT = """
python scripts/01_prepare_data.py --config_path config/datasets/pydocs.json --input_path ./my_corpus.txt --vocab_size 16384 --max_length 2048
python scripts/01_prepare_data.py --output_dir d --tokenizer_path t --sequence_length 512 --min_length 20 --use_minhash --minhash_threshold 0.8 --train_ratio 0.9 --shard_tokens 1000 --reuse_tokenizer
accelerate launch scripts/02_pretrain.py --config config/tiny.json --data_dir data/processed/NAME --learning_rate 3e-4 --batch_size 16 --gradient_accumulation_steps 4 --warmup_steps 1000 --save_steps 2000 --logging_steps 50
accelerate launch scripts/02_pretrain.py --config config/tiny.json --data_path d --data_dirs a b --data_weights 1 2 --output_dir o --num_train_epochs 1 --max_steps 5 --seed 1337 --no_deterministic --no_flash_attn --gradient_checkpointing --max_length 512 --resume_from_checkpoint checkpoints/pretrain/tiny/step_10000
python scripts/03_sft.py --model_path checkpoints/pretrain/tiny/final --dataset_path data/sft_dataset.json --prompt_template chatml --config_path config/sft.json --output_dir checkpoints/sft
python scripts/04_dpo.py --model_path checkpoints/sft --dataset_path data/dpo_dataset.json --beta 0.1 --learning_rate 5e-7 --batch_size 2 --gradient_accumulation_steps 8 --num_train_epochs 1 --output_dir o --max_length 512
python scripts/05_evaluate.py --model_path checkpoints/dpo --output_dir DIR --max_boolq_samples 100 --detailed_output --data_dir d
python scripts/05_evaluate.py --fast_mode --skip_perplexity --custom_prompts FILE
python scripts/06_serve.py --model_path checkpoints/dpo --mode interactive --template chatml --temperature 0.7 --max_new_tokens 150
python scripts/06_serve.py --model_path checkpoints/dpo --mode api --host 127.0.0.1 --port 8000
"""  # noqa: E501


def code_lines(path: Path) -> list[str]:
    """Lines of the fenced shell blocks, and inline code that begins like a command."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:bash|sh|console)?\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`((?:make|python|accelerate|torchrun|curl) [^`]+)`", text)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line.split("  #")[0].strip().removeprefix("$ ") for line in [*lines, *inline]]


def commands() -> list[str]:
    found = [line for path in DOCUMENTS if path.is_file() for line in code_lines(path)]
    starts = ("make ", "python ", "accelerate ", "torchrun ", ".venv/bin/")
    words = [line for line in found if line.startswith(starts) or " make " in line]
    return list(dict.fromkeys([*words, *CONTRACT.strip().splitlines()]))


@pytest.mark.parametrize("command", [line for line in commands() if "scripts/" in line])
def test_script_commands_parse(command):
    script, *flags = shlex.split(command[command.index("scripts/") :])
    config = STAGES[Path(script).stem]
    assert (ROOT / script).is_file()
    assert config.from_cli([str(ROOT / f) if f.startswith("config/") else f for f in flags])


@pytest.mark.parametrize("command", [line for line in commands() if "make " in f"{line} "])
def test_make_commands_name_real_targets(command):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    words = [word for part in command.split("&&") for word in shlex.split(part)]
    words = [word for word in words if word != "make"]
    targets = [word for word in words if "=" not in word and not word.startswith("-")]
    assert targets
    for target in targets:
        assert re.search(rf"^(.* )?{re.escape(target)}( .*)?:", makefile, re.MULTILINE), target
    for variable in (word.split("=")[0] for word in words if "=" in word):
        assert variable in known_variables(), f"the Makefile does not know {variable}"


@pytest.mark.parametrize("command", [line for line in commands() if "-m utils." in line])
def test_module_commands_exist(command):
    module = re.search(r"-m (utils\.[\w.]+)", command).group(1)
    assert importlib.util.find_spec(module)


SHIPPED = {
    **{path: PrepareConfig for path in (ROOT / "config" / "datasets").glob("*.json")},
    **{path: FilterProfile for path in (ROOT / "config" / "filters").glob("*.json")},
    **{path: SessionConfig for path in (ROOT / "sessions").glob("*.json")},
    **{ROOT / f"config/{name}.json": PretrainConfig for name in ("nano", "tiny", "small", "base")},
    ROOT / "config/advanced_example.json": PretrainConfig,
    ROOT / "config/qwen3_tiny.json": PretrainConfig,
    ROOT / "config/sft.json": SFTConfig,
    ROOT / "config/dpo.json": DPOConfig,
    ROOT / "config/evaluate.json": EvaluateConfig,
    ROOT / "config/serve.json": ServeConfig,
}


def test_no_config_is_forgotten():
    found = {*(ROOT / "config").rglob("*.json"), *(ROOT / "sessions").glob("*.json")}
    assert found == set(SHIPPED)


@pytest.mark.parametrize("path", sorted(SHIPPED), ids=lambda path: path.name)
def test_every_shipped_config_validates(path):
    assert SHIPPED[path].from_cli(["--config", str(path)])


def test_the_documented_shapes_are_the_shipped_ones():
    shapes = {
        name: tuple(
            read_config_file(ROOT / f"config/{name}.json")[key]
            for key in ("n_layer", "d_model", "n_head", "d_ff", "vocab_size", "sequence_length")
        )
        for name in ("tiny", "small", "base", "advanced_example")
    }
    assert shapes == {
        "tiny": (6, 256, 4, 1024, 32768, 1024),
        "small": (12, 512, 8, 2048, 32768, 1024),
        "base": (24, 768, 12, 3072, 32768, 2048),
        "advanced_example": (16, 640, 10, 2560, 32768, 1536),
    }


def place_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def headings(path: Path) -> set[str]:
    """What a link can name behind `#`, made of each heading as GitHub does."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCUMENTS, ids=place_of)
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    assert text.isascii()
    for target, place in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", text):
        if "://" in target:
            continue
        document = path.parent / target if target else path
        assert document.exists(), f"{place_of(path)} links to {target}"
        if place:
            assert place in headings(document), f"{place_of(path)} links to {target}#{place}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=place_of)
def test_named_files_exist(path):
    """`utils/log.py` from the checkout, `reading/formats.py` below utils/, tests below tests/."""
    text = path.read_text(encoding="utf-8")
    folders = "utils|scripts|config|sessions|evaluation|tests|docs"
    names = re.findall(rf"`((?:{folders})/[\w/.-]+\.\w+)`", text)
    names += re.findall(r"`([\w/]+/\w+\.py)`", text) + re.findall(r"[\w/]+/test_\w+\.py", text)
    places = (ROOT, ROOT / "utils", ROOT / "tests" / "utils")
    for name in names:
        is_there = any((folder / name).exists() for folder in places)
        is_pattern = any(word in name for word in ("SIZE", "NAME", "RUN"))
        assert is_pattern or is_there, f"{place_of(path)} names {name}, which is gone: change it"


@pytest.mark.parametrize("path", DOCUMENTS, ids=place_of)
def test_lines_of_text_fit_a_window(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > MOST_COLUMNS and " " in line.strip()] == []


def test_the_readme_lists_the_targets_of_the_makefile():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z0-9][a-z0-9 -]*):.*## ", makefile, re.MULTILINE)
    for target in (name for group in targets for name in group.split()):
        assert f"`{target}`" in readme or f"`make {target}" in readme, target


def test_the_python_of_the_readme_gives_the_answer_of_stage_06(
    checkpoint_dir, tmp_path, monkeypatch, capsys
):
    from utils.generation.engine import answer
    from utils.generation.sampling import Sampling
    from utils.model.checkpoints import load_model

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", readme, re.DOTALL).group(1)
    (tmp_path / "checkpoints" / "dpo").mkdir(parents=True)
    (tmp_path / "checkpoints" / "dpo" / "final").symlink_to(checkpoint_dir)
    (tmp_path / "example.py").write_text(example)
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path("example.py")
    expected = answer(
        load_model(checkpoint_dir, device="cpu"), found["messages"], Sampling(max_new_tokens=60)
    )
    answered = found["ids"].tolist()[found["prompt"]["input_ids"].shape[1] :]
    assert answered[: len(expected.ids)] == expected.ids
    assert capsys.readouterr().out == f"{expected.text}\n"

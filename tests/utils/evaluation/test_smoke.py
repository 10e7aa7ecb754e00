import json

import pytest

from utils.errors import DataError
from utils.evaluation.smoke import one_of_each, read_prompts, run_smoke
from utils.generation.engine import answer
from utils.generation.sampling import Sampling
from utils.model.checkpoints import LoadedModel, load_model

CATEGORIES = [
    "basic_knowledge",
    "language_understanding",
    "reasoning",
    "creativity",
    "instruction_following",
    "wikipedia_style",
    "conversation",
    "multilingual",
]


@pytest.fixture(scope="module")
def loaded(checkpoint_dir):
    return load_model(checkpoint_dir, device="cpu")


def written(tmp_path, content):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_the_shipped_prompts_have_the_eight_categories_with_two_or_more_each():
    prompts = read_prompts(None)
    assert list(dict.fromkeys(prompt.category for prompt in prompts)) == CATEGORIES
    assert all(sum(p.category == name for p in prompts) >= 2 for name in CATEGORIES)
    assert all(prompt.opening for prompt in prompts)
    assert len(one_of_each(prompts)) == 8


def test_own_prompts_are_a_list_or_groups(tmp_path):
    [only] = read_prompts(written(tmp_path, ["Why?"]))
    assert (only.category, only.prompt) == ("custom", "Why?")
    groups = {"_comment": "x", "mine": ["A?", {"prompt": "B?", "keywords": ["b"]}]}
    assert [p.prompt for p in read_prompts(written(tmp_path, groups))] == ["A?", "B?"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text", "expected {category"),
        ({"mine": "A?"}, "mine is no list"),
        ({"mine": ["A?", 3]}, "mine, prompt 2: expected text"),
        ({"mine": [{"prompt": "A?", "keyword": "b"}]}, "prompt 1: keyword: Extra inputs"),
        ({"mine": [" "]}, "mine, prompt 1"),
        ({}, "holds no prompts"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_prompts(written(tmp_path, content))


def test_a_chat_checkpoint_is_asked_through_its_template(loaded, tmp_path):
    prompts = read_prompts(written(tmp_path, {"a": ["What is a list?"], "b": ["Why?", "x " * 200]}))
    result, records = run_smoke(loaded, prompts, max_new_tokens=12)
    messages = [{"role": "user", "content": "What is a list?"}]
    assert records[0]["response"] == answer(loaded, messages, Sampling(max_new_tokens=12)).text
    assert (result["prompts"], result["left_out"], result["as"]) == (2, 1, "conversation")
    assert "leave no room" in records[2]["status"]
    assert list(result["categories"]) == ["a", "b"]
    assert 0 <= result["quality"] <= 1


def test_a_base_checkpoint_continues_the_opening(loaded, tmp_path):
    base = LoadedModel(loaded.model, loaded.tokenizer, loaded.folder, {"template": None})
    entry = {"prompt": "What is a list?", "opening": "A list is"}
    result, [record] = run_smoke(base, read_prompts(written(tmp_path, [entry])), 8)
    assert (result["as"], record["prompt"]) == ("continuation", "A list is")
    assert "ends" not in record["quality"]

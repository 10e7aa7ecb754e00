import shutil

import pytest

from utils.config.serve import ServeConfig
from utils.files import write_json
from utils.serving.model import can_chat, describe, name_of, open_model, sampling_of


@pytest.fixture
def settings(checkpoint_dir):
    return ServeConfig(model_path=checkpoint_dir, cpu=True)


def test_a_run_folder_is_opened_in_fp32_with_its_own_template(settings, caplog):
    loaded, cfg = open_model(settings.model_copy(update={"max_new_tokens": 90}))
    assert str(loaded.model.dtype) == "torch.float32"
    assert loaded.template.name == "chatml" and can_chat(loaded)
    assert name_of(loaded) == "toy"
    assert "template chatml, context 128, cpu float32" in describe(loaded)
    assert cfg.max_new_tokens == 90
    assert caplog.text == ""


def test_an_answer_length_beyond_the_context_is_lowered_aloud(settings, caplog):
    _, cfg = open_model(settings)
    assert cfg.max_new_tokens == 64
    assert "lowered from 150 to 64: the context of this model is 128" in caplog.text


def test_another_template_is_taken_aloud(settings, caplog):
    loaded, _ = open_model(settings.model_copy(update={"template": "instruct"}))
    assert loaded.template.name == "instruct"
    assert "trained with chatml" in caplog.text


def test_a_base_model_is_called_by_its_name(settings, caplog, tmp_path):
    shutil.copytree(settings.model_path, tmp_path / "base")
    (tmp_path / "base" / "manifest.json").unlink()
    write_json(tmp_path / "base" / "lumi.json", {"stage": "pretrain", "template": None})
    loaded, _ = open_model(settings.model_copy(update={"model_path": tmp_path / "base"}))
    assert not can_chat(loaded)
    assert "base model, no template" in describe(loaded)
    assert caplog.text.count("it continues a text and was never taught to chat") == 1


def test_the_sampling_settings_are_those_of_the_stage():
    sampling = sampling_of(ServeConfig(temperature=0.5, top_k=3, seed=1, max_new_tokens=9))
    assert (sampling.temperature, sampling.top_k, sampling.seed) == (0.5, 3, 1)
    assert (sampling.top_p, sampling.max_new_tokens) == (0.95, 9)

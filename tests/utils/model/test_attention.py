"""Blocked causal attention against torch's own."""

import pytest
import torch

from utils.config.model import ModelConfig
from utils.model import attention
from utils.model.architecture import build_model
from utils.model.attention import BLOCKED, UNMASKED, causal_blocks, choose_attention


@pytest.mark.parametrize("length", [1, 5, 128, 300])
def test_blocks_equal_sdpa(length):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, length, 16) for _ in range(3))
    ours = causal_blocks(q, k, v, 16**-0.5)
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)


def test_a_model_with_grouped_heads_gives_the_logits_of_sdpa_cached_too():
    config = ModelConfig(
        n_layer=2, d_model=64, n_head=4, num_key_value_heads=2, d_ff=96, vocab_size=300
    )
    ids = torch.randint(4, 300, (2, 150))
    plain = build_model(config).eval()
    blocked = build_model(config, attention=choose_attention(torch.device("cpu"))).eval()
    assert blocked.config._attn_implementation == BLOCKED
    torch.testing.assert_close(blocked(ids).logits, plain(ids).logits, atol=5e-6, rtol=1e-4)
    ones = torch.ones_like(ids[:1])
    options = dict(attention_mask=ones, max_new_tokens=5, do_sample=False)
    assert torch.equal(blocked.generate(ids[:1], **options), plain.generate(ids[:1], **options))


def test_dropout_drops_about_its_share():
    torch.manual_seed(0)
    q = k = torch.zeros(1, 1, 256, 2)
    v = torch.ones(1, 1, 256, 2)
    out = causal_blocks(q, k, v, 1.0, dropout=0.5)
    assert out.std() > 0.05 and abs(out[:, :, 64:].mean() - 1) < 0.1


def test_the_choice_never_reaches_a_checkpoint(tmp_path):
    config = ModelConfig(n_layer=1, d_model=16, n_head=2, d_ff=16, vocab_size=64)
    model = build_model(config, attention=choose_attention(torch.device("cpu")))
    model.save_pretrained(tmp_path)
    assert BLOCKED not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize(
    ("device", "options", "said"),
    [
        ("cuda", dict(flash=False), "switched off"),
        ("mps", {}, "needs CUDA"),
        ("cpu", dict(blocked=False), "blocks are switched off"),
    ],
)
def test_a_fallback_is_named(caplog, device, options, said):
    with caplog.at_level("INFO"):
        name = choose_attention(torch.device(device), **options)
    assert name == ("sdpa" if device == "cpu" else UNMASKED) and said in caplog.text


@pytest.fixture
def a_gpu(monkeypatch):
    """What the choice asks of CUDA, as answers that a test sets."""
    installed: list[str] = []

    def activate(name):
        if name not in installed:
            raise ModuleNotFoundError(name)

    monkeypatch.setattr(attention, "activate_flash_attention_impl", activate)
    monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda: "FA2" in installed)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    return installed


@pytest.mark.parametrize(
    ("installed", "dropout", "said", "name"),
    [
        (["FA2", "FA3", "FA4"], 0.0, "SDPA by FA3", UNMASKED),
        (["FA2", "FA4"], 0.0, "SDPA by FA4", UNMASKED),
        (["FA2", "FA3"], 0.1, "FlashAttention-2", "flash_attention_2"),
        (["FA2"], 0.0, "FlashAttention-2", "flash_attention_2"),
        ([], 0.0, "is not installed", UNMASKED),
    ],
)
def test_the_newest_flash_attention_that_is_installed_is_taken(
    a_gpu, caplog, installed, dropout, said, name
):
    a_gpu += installed
    with caplog.at_level("INFO"):
        assert choose_attention(torch.device("cuda"), dropout=dropout) == name
    assert said in caplog.text


def test_sdpa_without_a_mask_is_causal_and_cached_too():
    config = ModelConfig(n_layer=2, d_model=64, n_head=4, d_ff=96, vocab_size=300)
    ids = torch.randint(4, 300, (2, 50))
    plain = build_model(config).eval()
    unmasked = build_model(config, attention=choose_attention(torch.device("mps"))).eval()
    torch.testing.assert_close(unmasked(ids).logits, plain(ids).logits, atol=1e-6, rtol=1e-5)
    options = dict(attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)
    assert torch.equal(unmasked.generate(ids, **options), plain.generate(ids, **options))

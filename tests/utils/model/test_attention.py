"""Blocked causal attention against torch's own; attention inside documents against one by one."""

from itertools import pairwise

import pytest
import torch
from transformers import AttentionInterface

from utils.config.model import ModelConfig
from utils.model import attention
from utils.model.architecture import build_model
from utils.model.attention import BLOCKED, UNMASKED, DocumentMask, causal_blocks, choose_attention
from utils.training.step.loss import RowForm, language_model_loss

EOS = 2


def by_sdpa(q, k, v, scaling, documents=None):
    """What `causal_blocks` returns, by torch's SDPA with an explicit mask."""
    length = q.shape[2]
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    if documents is not None:
        mask = mask & (documents[:, None, :, None] == documents[:, None, None, :])
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scaling)


def with_gradients(attend, tensors, *arguments, **options):
    """The output, and the gradients of a random sum of it, in fp32."""
    tensors = [tensor.clone().requires_grad_() for tensor in tensors]
    out = attend(*tensors, *arguments, **options)
    torch.manual_seed(7)
    (out * torch.randn_like(out)).sum().backward()
    return [out.float(), *(tensor.grad.float() for tensor in tensors)]


@pytest.mark.parametrize("inside_documents", [False, True])
@pytest.mark.parametrize("length", [1, 5, 128, 300])
def test_blocks_and_their_gradients_equal_those_of_sdpa(length, inside_documents):
    torch.manual_seed(0)
    tensors = [torch.randn(2, 3, length, 16) for _ in range(3)]
    documents = (torch.rand(2, length) < 0.05).cumsum(1) if inside_documents else None
    ours = with_gradients(causal_blocks, tensors, 0.3, documents=documents)
    theirs = with_gradients(by_sdpa, tensors, 0.3, documents=documents)
    for found, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, wanted, atol=5e-6, rtol=1e-5)


def test_in_bf16_they_are_off_by_its_rounding_alone():
    torch.manual_seed(0)
    tensors = [torch.randn(2, 3, 300, 16) for _ in range(3)]
    exact = with_gradients(by_sdpa, tensors, 0.25)
    rounded = with_gradients(causal_blocks, [tensor.bfloat16() for tensor in tensors], 0.25)
    for found, wanted in zip(rounded, exact, strict=True):
        assert (found - wanted).norm() < 0.01 * wanted.norm()


def test_queries_in_fp32_beside_values_in_bf16_are_taken_in_bf16():
    """So they come from rotary embeddings under autocast; all products must be in bf16."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 200, 16).bfloat16() for _ in range(3))
    expected = with_gradients(causal_blocks, [q, k, v], 0.25)
    found = with_gradients(causal_blocks, [q.float(), k.float(), v], 0.25)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_dropout_has_the_gradients_of_what_it_dropped(monkeypatch):
    torch.manual_seed(0)
    tensors = [torch.randn(2, 3, 200, 16) for _ in range(3)]
    keep = (torch.rand(2, 3, 200, 200) < 0.8) / 0.8

    def dropped(weights, share):
        assert share == 0.2
        end = weights.shape[3]
        return weights * keep[:, :, end - weights.shape[2] : end, :end]

    def plain(q, k, v):
        scores = (q @ k.mT * 0.3).masked_fill(torch.ones(200, 200).triu(1).bool(), -torch.inf)
        return (scores.softmax(-1) * keep) @ v

    monkeypatch.setattr(attention.nn.functional, "dropout", dropped)
    ours = with_gradients(causal_blocks, tensors, 0.3, dropout=0.2)
    for found, wanted in zip(ours, with_gradients(plain, tensors), strict=True):
        torch.testing.assert_close(found, wanted, atol=5e-6, rtol=1e-5)


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


VARLEN = "flash_attention_reference"


def varlen_reference(module, query, key, value, attention_mask, **options):
    """What FlashAttention does with the borders of documents, by torch's SDPA one by one."""
    assert attention_mask is None
    q, k, v = (x.transpose(1, 2).flatten(0, 1).transpose(0, 1) for x in (query, key, value))
    groups = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)  # (H, B * T, D)
    out = torch.zeros_like(q)
    borders = options["cu_seq_lens_q"].tolist()
    assert borders[0] == 0 and borders[-1] == q.shape[1] and options["max_length_k"] == 96
    for start, end in pairwise(borders):
        part = (x[:, start:end] for x in (q, k, v))
        out[:, start:end] = torch.nn.functional.scaled_dot_product_attention(
            *part, is_causal=True, scale=options["scaling"]
        )
    batch, _, length, _ = query.shape
    return out.transpose(0, 1).unflatten(0, (batch, length)).contiguous(), None


def model_with(attention, architecture="llama"):
    config = ModelConfig(
        architecture=architecture, n_layer=2, d_model=64, n_head=4, num_key_value_heads=2,
        d_ff=96, vocab_size=300, sequence_length=96,
    )  # fmt: skip
    choose_attention(torch.device("cpu"))
    choose_attention(torch.device("mps"))
    AttentionInterface.register(VARLEN, varlen_reference)
    model = build_model(config)
    model.config._attn_implementation = attention
    return model


def rows_of_documents():
    """Two rows of 96: five documents, an empty one, and one that a row end cuts."""
    torch.manual_seed(1)
    ids = torch.randint(4, 300, (2, 96))
    ids[0, [10, 11, 60]] = EOS
    ids[1, [0, 95]] = EOS
    return ids


def documents_of(ids):
    """The documents of rows, each behind its EOS but the first of a row that begins without."""
    for row in ids:
        borders = sorted({0, *(row == EOS).nonzero().flatten().tolist(), len(row)})
        for start, end in pairwise(borders):
            yield row[start : min(end + 1, len(row))]  # the next EOS is its last target


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("attention", [BLOCKED, "sdpa", UNMASKED, VARLEN])
def test_a_packed_row_has_loss_and_gradients_of_its_documents_one_by_one(attention, architecture):
    ids, model = rows_of_documents(), model_with(attention, architecture)
    parameters = list(model.parameters())
    form = RowForm(mask=DocumentMask(EOS, 4))
    packed = language_model_loss(model, ids, 1.0, form)
    found = torch.autograd.grad(packed, parameters)
    plain = model_with("sdpa", architecture)
    total = torch.zeros(())
    for document in documents_of(ids):
        logits = plain(document[None, :-1]).logits[0] if len(document) > 1 else None
        if logits is not None:
            total = total + torch.nn.functional.cross_entropy(logits, document[1:], reduction="sum")
    wanted = torch.autograd.grad(total, list(plain.parameters()))
    torch.testing.assert_close(packed, total, atol=1e-5, rtol=1e-5)
    for left, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("attention", [BLOCKED, "sdpa", VARLEN])
def test_a_row_without_a_border_gives_what_it_gives_without_the_mask(attention):
    torch.manual_seed(1)
    ids = torch.randint(4, 300, (2, 96))
    model = model_with(attention)
    masked = language_model_loss(model, ids, form=RowForm(mask=DocumentMask(EOS, 3)))
    plain = language_model_loss(model_with("sdpa" if attention == VARLEN else attention), ids)
    torch.testing.assert_close(masked, plain, atol=1e-6, rtol=1e-6)
    assert attention != BLOCKED or masked.item() == plain.item()


def test_no_token_sees_beyond_the_end_of_an_earlier_document():
    ids, model = rows_of_documents(), model_with(BLOCKED)
    mask = DocumentMask(EOS, 4)
    other = ids.clone()
    other[0, :60] = torch.randint(4, 300, (60,))  # all before the last document of row 0
    other[0, [3, 40]] = EOS

    def hidden(rows):
        return model.model(rows, use_cache=False, **mask.inputs(rows, BLOCKED)).last_hidden_state

    assert torch.equal(hidden(ids)[0, 60:], hidden(other)[0, 60:])
    assert not torch.equal(hidden(ids)[0, 12:60], hidden(other)[0, 12:60])


def test_positions_restart_and_lengths_have_a_fixed_shape():
    mask, ids = DocumentMask(EOS, 3), torch.tensor([[5, 6, EOS, 7, EOS], [EOS, 5, 6, 7, 8]])
    inputs = mask.inputs(ids, "flash_attention_2")
    assert inputs["position_ids"].tolist() == [[0, 1, 0, 1, 0], [0, 1, 2, 3, 4]]
    assert inputs["cu_seq_lens_q"].tolist() == [0, 2, 4, 5, 10, 10, 10]
    assert inputs["max_length_q"] == 5 and inputs["cu_seq_lens_k"].dtype == torch.int32
    assert mask.inputs(ids, BLOCKED)["document_ids"].tolist() == [[0, 0, 1, 1, 2], [1, 1, 1, 1, 1]]


def test_padding_behind_the_last_document_is_not_learned():
    model, pad = model_with(BLOCKED), 3
    ids = rows_of_documents()[:1]
    padded = torch.cat([ids[:, :61], torch.full((1, 35), pad)], 1)
    form = RowForm(pad, DocumentMask(EOS, 4))
    loss = language_model_loss(model, padded, form=form)
    short = language_model_loss(model, ids[:, :61], form=RowForm(mask=DocumentMask(EOS, 4)))
    torch.testing.assert_close(loss, short, atol=1e-6, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("attention", [BLOCKED, "sdpa"])
def test_one_compiled_graph_serves_rows_with_any_borders(attention):
    from torch._dynamo.utils import counters

    form, ids = RowForm(mask=DocumentMask(EOS, 4)), rows_of_documents()
    eager, compiled = model_with(attention), model_with(attention)
    for layer in compiled.model.layers:
        layer.compile(dynamic=False)
    graphs = []
    for rows in (ids, ids.flip(0), torch.randint(4, 300, ids.shape)):
        found = language_model_loss(compiled, rows, form=form)
        found.backward()
        graphs.append(counters["stats"]["unique_graphs"])
        wanted = language_model_loss(eager, rows, form=form)
        torch.testing.assert_close(found, wanted, atol=2e-6, rtol=1e-6)
    assert graphs[0] > 0 and graphs[0] == graphs[-1]


@pytest.mark.gpu
@pytest.mark.parametrize("flash", [True, False])
def test_on_a_gpu_documents_have_the_loss_they_have_on_a_cpu(flash):
    form, ids, device = (
        RowForm(mask=DocumentMask(EOS, 4)),
        rows_of_documents(),
        torch.device("cuda"),
    )
    wanted = language_model_loss(model_with("sdpa"), ids, form=form)
    model = model_with(choose_attention(device, flash=flash)).to(device)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        found = language_model_loss(model, ids.to(device), form=form)
    assert found.item() == pytest.approx(wanted.item(), abs=0.02)

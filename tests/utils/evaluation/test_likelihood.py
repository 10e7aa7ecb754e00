import math

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    OPTConfig,
    PhiConfig,
    Qwen2Config,
)

from utils.errors import BudgetError
from utils.evaluation import likelihood
from utils.evaluation.likelihood import (
    IGNORE,
    encode_pair,
    encode_text,
    pair_row,
    rolling_windows,
    score_pairs,
    score_rolling,
    score_rows,
    target_log_probs,
)
from utils.model.checkpoints import load_model


@pytest.fixture(scope="module")
def loaded(checkpoint_dir):
    return load_model(checkpoint_dir, device="cpu")


@torch.no_grad()
def one_by_one(model, context, continuation, max_length):
    """Log-likelihood and greedy match with one forward pass a token, nothing batched."""
    total, greedy = 0.0, True
    ids = [*context, *continuation][-(max_length + 1) :]
    for place in range(len(ids) - len(continuation), len(ids)):
        logits = model(input_ids=torch.tensor([ids[:place]])).logits[0, -1].double()
        total += float(torch.log_softmax(logits, dim=-1)[ids[place]])
        greedy = greedy and int(logits.argmax()) == ids[place]
    return total, greedy


def greedy_continuation(model, context, count):
    ids = list(context)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(context) :]


def test_scores_equal_one_forward_pass_a_token(loaded):
    generator = torch.Generator().manual_seed(0)

    def ids(count):
        return torch.randint(4, 600, (count,), generator=generator).tolist()

    pairs = [(ids(3), ids(2)), (ids(40), ids(7)), (ids(126), ids(5)), (ids(200), ids(1))]
    context = ids(10)
    pairs.append((context, greedy_continuation(loaded.model, context, 4)))
    found = score_pairs(loaded, pairs)
    for (score, is_greedy), pair in zip(found, pairs, strict=True):
        wanted, wanted_greedy = one_by_one(loaded.model, *pair, 128)
        assert score == pytest.approx(wanted, abs=2e-5)
        assert is_greedy is wanted_greedy
    assert [is_greedy for _, is_greedy in found] == [False] * 4 + [True]


def test_small_batches_and_small_chunks_give_the_same_scores(loaded, monkeypatch):
    pairs = [([2, 5, 9], [7, 8]), ([2], [30, 31, 32, 33, 34]), ([2, 4] * 30, [11])]
    whole = score_pairs(loaded, pairs)
    monkeypatch.setattr(likelihood, "LOGIT_ROWS", 2)
    monkeypatch.setitem(likelihood.POSITIONS_PER_BATCH, "cpu", 1)
    for (a, _), (b, _) in zip(whole, score_pairs(loaded, pairs), strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 17, 20, 31])
def test_rolling_windows_score_each_token_once(count):
    ids = list(range(100, 100 + count))
    windows = rolling_windows(ids, prefix_id=2, max_length=8)
    assert [token for _, continuation in windows for token in continuation] == ids
    assert all(len(context) + len(continuation) <= 9 for context, continuation in windows)
    assert windows[0][0] == [2]


def test_the_last_window_is_filled_up_with_earlier_tokens():
    windows = rolling_windows([10, 11, 12, 13, 14, 15, 16], prefix_id=2, max_length=3)
    assert windows == [
        ([2], [10, 11, 12]),
        ([12], [13, 14, 15]),
        ([13, 14, 15], [16]),
    ]


def test_a_rolling_score_is_the_sum_of_its_windows(loaded):
    text = "json.dumps returns a string. " * 20
    ids = encode_text(loaded, text)
    assert len(ids) > 128
    [(total, tokens)] = score_rolling(loaded, [text])
    windows = rolling_windows(ids, 2, 128)
    wanted = sum(one_by_one(loaded.model, *window, 128)[0] for window in windows)
    assert tokens == len(ids)
    assert total == pytest.approx(wanted, abs=1e-3)


def test_blanks_at_the_end_of_a_context_move_to_the_continuation(loaded):
    context, continuation = encode_pair(loaded, "Answer:  ", "yes")
    assert loaded.tokenizer.decode(context) == "Answer:"
    assert loaded.tokenizer.decode(continuation) == "  yes"
    assert (context, continuation) == encode_pair(loaded, "Answer:", "  yes")


def test_an_empty_context_becomes_the_prefix_token(loaded):
    assert encode_pair(loaded, "", "the") == ([2], encode_text(loaded, "the"))


def test_no_bos_is_added_to_a_context_and_control_strings_stay_text(loaded):
    ids = encode_text(loaded, "a</s><|im_end|>b")
    assert not {2, 5} & set(ids)
    assert loaded.tokenizer.decode(ids) == "a</s><|im_end|>b"


def test_a_long_pair_keeps_the_end_of_its_context():
    inputs, targets = pair_row(([1, 2, 3, 4, 5], [6, 7]), max_length=4)
    assert inputs == [3, 4, 5, 6]
    assert targets == [IGNORE, IGNORE, 6, 7]


def test_a_model_that_knows_nothing_scores_ln_of_the_vocabulary(loaded):
    model = type(loaded.model)(loaded.model.config)
    torch.nn.init.zeros_(model.get_input_embeddings().weight)
    [score] = score_rows(model, [([2, 9, 8], [9, 8, 7])])
    assert score.total == pytest.approx(-3 * math.log(600), abs=1e-5)
    assert len(score.log_probs) == 3


def test_a_row_without_targets_scores_nothing(loaded):
    [score] = score_rows(loaded.model, [([2, 9], [IGNORE, IGNORE])])
    assert (score.total, len(score.log_probs)) == (0.0, 0)


def test_scoring_leaves_the_training_mode_as_it_was(loaded):
    loaded.model.train()
    score_pairs(loaded, [([2], [5])])
    was_training = loaded.model.training
    loaded.model.eval()
    assert was_training


def test_the_check_sees_the_share_done_and_can_stop(loaded, monkeypatch):
    monkeypatch.setitem(likelihood.POSITIONS_PER_BATCH, "cpu", 1)
    shares = []

    def check(done):
        shares.append(done)
        if done >= 0.5:
            raise BudgetError("enough")

    with pytest.raises(BudgetError):
        score_pairs(loaded, [([2], [5])] * 4, check=check)
    assert shares == [0.0, 0.25, 0.5]


SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
FAMILIES = [
    GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=16),
    GPTNeoXConfig(**SIZES, intermediate_size=32, max_position_embeddings=16),
    GPTNeoConfig(
        vocab_size=50, hidden_size=16, num_layers=1, num_heads=2, max_position_embeddings=16,
        attention_types=[[["global"], 1]],
    ),
    OPTConfig(**SIZES, ffn_dim=32, max_position_embeddings=16, word_embed_proj_dim=8),
    Qwen2Config(**SIZES, num_key_value_heads=1, intermediate_size=32),
    PhiConfig(**SIZES, intermediate_size=32, max_position_embeddings=16),
]  # fmt: skip


@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config.model_type)
def test_other_families_score_as_their_own_logits_say(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    inputs = torch.tensor([[5, 6, 7, 8, 9, 10]])
    targets = torch.tensor([[IGNORE, 7, 8, IGNORE, 10, 11]])
    with torch.no_grad():
        found, _ = target_log_probs(model, inputs, targets)
        logits = model(input_ids=inputs).logits[0]
    wanted = torch.log_softmax(logits, dim=-1)[[1, 2, 4, 5], [7, 8, 10, 11]]
    assert torch.allclose(found, wanted, atol=1e-6)

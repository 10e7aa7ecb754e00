import torch

from utils.generation.batch import Batch

PROMPTS = [[5, 60, 7], [200, 8, 99, 100, 31, 17, 400], [12, 13, 14, 15]]


def uncached(loaded, ids):
    with torch.inference_mode():
        return loaded.model(torch.tensor([ids]), use_cache=False).logits[0, -1]


def test_cached_logits_equal_uncached_ones_for_padded_rows_that_come_and_go(loaded):
    with torch.inference_mode():
        batch = Batch(loaded.model, PROMPTS)
        rows = [list(prompt) for prompt in PROMPTS]
        for logits, row in zip(batch.logits, rows, strict=True):
            assert torch.allclose(logits, uncached(loaded, row), atol=2e-5)
        for keep, tokens in (([0, 1, 2], [9, 10, 11]), ([0, 2], [70, 71]), ([1], [300])):
            batch.step(tokens, keep)
            rows = [[*rows[place], token] for place, token in zip(keep, tokens, strict=True)]
            assert len(batch.logits) == len(rows)
            for logits, row in zip(batch.logits, rows, strict=True):
                assert torch.allclose(logits, uncached(loaded, row), atol=2e-5)

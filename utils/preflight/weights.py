"""Proofs about a model as a whole: its cache gives what it gives without, its file what it was."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from utils.files import atomic_folder
from utils.generation.engine import Batch
from utils.model.checkpoints import load_model, save_model_files
from utils.preflight.result import CheckResult

LOGIT_TOLERANCE = 1e-3
"""Difference of logits relative to their spread, in fp32: sums in another order give about 1e-5."""
NEW_TOKENS = 16

Begin = Callable[[Any, Sequence[Sequence[int]]], Any]
"""`begin(model, prompts)` reads the prompts; `.logits` [B, V] and `.step(tokens, rows)` go on."""
Save = Callable[..., None]


def cached_equals_uncached(
    model: Any, prompts: Sequence[Sequence[int]], begin: Begin = Batch
) -> CheckResult:
    """Prove that rows written greedily with a cache have the logits of a pass without any.

    Prompts of different length also prove the padding of a batch.
    """
    model.eval()
    batch, rows = begin(model, prompts), list(range(len(prompts)))
    written: list[list[int]] = [[] for _ in prompts]
    cached: list[torch.Tensor] = []
    for _ in range(NEW_TOKENS):
        cached.append(batch.logits)
        tokens = batch.logits.argmax(-1).tolist()
        for row, token in zip(written, tokens, strict=True):
            row.append(token)
        batch.step(tokens, rows)
    worst = max(
        _relative_gap(model, [*prompt, *new], torch.stack([step[row] for step in cached]))
        for row, (prompt, new) in enumerate(zip(prompts, written, strict=True))
    )
    return CheckResult(
        "cached generation equals uncached",
        f"logits differ by {worst:.1e} of their spread",
        f"at most {LOGIT_TOLERANCE:.0e} over {NEW_TOKENS} tokens",
        worst <= LOGIT_TOLERANCE,
        "the key/value cache or its positions are wrong; check utils/generation/engine.py",
    )


def _relative_gap(model: Any, ids: list[int], cached: torch.Tensor) -> float:
    """Return how far `cached` [new, V] is from the logits of one pass over all of `ids`."""
    with torch.no_grad():
        inputs = torch.tensor([ids], device=model.device)
        logits = model(input_ids=inputs, use_cache=False).logits[0].float()  # [T, V]
    exact = logits[len(ids) - len(cached) - 1 : -1]
    return float((exact - cached).abs().max() / exact.std())


def save_and_load(
    model: Any, tokenizer_dir: Path, card: dict[str, Any], save: Save = save_model_files
) -> CheckResult:
    """Prove that a model that was saved and loaded gives the same logits, to the bit."""
    ids = torch.arange(4, 4 + min(32, model.config.max_position_embeddings))[None]
    ids = ids % model.config.vocab_size
    model.eval()
    with tempfile.TemporaryDirectory(prefix="lumi-preflight-") as place:
        target = Path(place) / "model"
        with atomic_folder(target) as folder:
            save(model, folder, tokenizer_dir=tokenizer_dir, card=card)
        loaded: Any = load_model(target, device=model.device).model
    with torch.no_grad():
        before, after = model(input_ids=ids).logits, loaded(input_ids=ids).logits
    difference = float((before - after).abs().max())
    return CheckResult(
        "save, load, same logits",
        f"logits differ by {difference:.1e}",
        "0 (the same bits)",
        difference == 0.0,
        "a tensor is lost or changed on the way; check utils/model/checkpoints.py",
    )

"""Proofs that the loss teaches the next token, and with the same gradient however it is split.

Each proof takes what it checks as an argument, so that a test can hand it a broken one.
Shapes: B rows, T tokens, V pieces, D width.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from utils.config.model import ModelConfig
from utils.model.architecture import INITIALIZER_STD, build_model
from utils.preflight.result import CheckResult
from utils.tokenizers.control_tokens import CONTROL_TOKENS

Loss = Callable[..., torch.Tensor]
"""`loss(model, input_ids, normalizer=None)`, as `utils.training.step.loss.language_model_loss`."""

INITIAL_LOSS_SLACK = 0.25
"""Nats beyond the arithmetic. Sampling: a logit has a spread of sqrt(D) * 0.02 (0.32 for tiny, 0.55
for base), 512 tokens average it to 0.02. The rest is for what attention and the tied embedding add:
measured 0.01 to 0.05. A wrong vocabulary (2 x) would be off by ln 2 = 0.69."""

SMALL_WIDTH = 64
"""Width of the small model (more where very many heads share one key)."""
CYCLE = 16
"""Symbols of the cyclic language."""
CYCLE_TOKENS = 32
CYCLE_ROWS = 8
CYCLE_STEPS = 60
CYCLE_RATE = 1e-2
CYCLE_ACCURACY = 0.99

GRADIENT_TOLERANCE = 1e-4
"""Relative to the gradient's norm: fp32 sums in another order differ by about 1e-6."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Run proofs in full fp32 on one thread; random state, precision and threads come back.

    The models are so small that a second thread costs more than it does, most of all on a machine
    that is busy (measured: 10 s instead of 0.4 s for the cyclic language).
    """
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_float32_matmul_precision("highest")
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(threads)


def small_architecture(
    config: ModelConfig, vocab_size: int, sequence_length: int = 64
) -> ModelConfig:
    """Return a two-layer model with the same kinds of parts: head sharing, ratios, tying, RoPE."""
    sharing = config.n_head // (config.num_key_value_heads or config.n_head)
    heads = max(2, sharing)
    width = heads * max(8, SMALL_WIDTH // heads // 2 * 2)
    return ModelConfig(
        model_name="preflight",
        architecture=config.architecture,
        n_layer=2,
        d_model=width,
        n_head=heads,
        num_key_value_heads=heads // sharing,
        d_ff=max(1, round(width * config.d_ff / config.d_model)),
        vocab_size=vocab_size,
        sequence_length=sequence_length,
        dropout=0.0,
        rope_theta=config.rope_theta,
        tie_embeddings=config.tie_embeddings,
    )


def initial_loss(model: Any, rows: torch.Tensor, loss: Loss) -> CheckResult:
    """Prove that a fresh model is as unsure as it can be: loss near ln V.

    Logits are a unit-RMS vector times rows of spread 0.02, so their variance is D * 0.02^2, and
    E[log sum exp] = ln V + variance / 2.

    `rows` are int64 [B, T] of real validation tokens.
    """
    vocab_size, width = model.config.vocab_size, model.config.hidden_size
    expected = math.log(vocab_size) + width * INITIALIZER_STD**2 / 2
    model.eval()
    with torch.no_grad():
        measured = float(loss(model, rows))
    return CheckResult(
        "initial loss near ln V",
        f"{measured:.3f}",
        f"{expected:.3f} +- {INITIAL_LOSS_SLACK} (ln {vocab_size} = {math.log(vocab_size):.3f})",
        abs(measured - expected) <= INITIAL_LOSS_SLACK,
        "the model's initialisation, its vocabulary or the loss is wrong; "
        "check vocab_size against the tokenizer",
    )


def cyclic_rows(rows: int, seed: int) -> torch.Tensor:
    """Return int64 [rows, CYCLE_TOKENS] where each symbol is followed by the next of the cycle."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(CYCLE, (rows, 1), generator=generator)
    return len(CONTROL_TOKENS) + (starts + torch.arange(CYCLE_TOKENS)) % CYCLE


def next_token(config: ModelConfig, loss: Loss) -> CheckResult:
    """Prove that a small model of this architecture learns x[t+1], not another neighbour."""
    model: Any = build_model(small_architecture(config, len(CONTROL_TOKENS) + CYCLE))
    optimizer = torch.optim.AdamW(model.parameters(), lr=CYCLE_RATE)
    model.train()
    for step in range(CYCLE_STEPS):
        loss(model, cyclic_rows(CYCLE_ROWS, step)).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    rows = cyclic_rows(CYCLE_ROWS, CYCLE_STEPS)
    with torch.no_grad():
        guesses = model(input_ids=rows).logits.argmax(-1)  # [B, T]
    hits = {
        shift: float((guesses[:, :-shift] == rows[:, shift:]).float().mean()) for shift in (1, 2, 3)
    }
    best = max(hits, key=lambda shift: hits[shift])
    learned = f", token t+{best} instead" if best != 1 and hits[best] > CYCLE_ACCURACY else ""
    return CheckResult(
        "predicts the next token of a cyclic language",
        f"{hits[1]:.0%} right{learned}",
        f"at least {CYCLE_ACCURACY:.0%} after {CYCLE_STEPS} steps",
        hits[1] >= CYCLE_ACCURACY,
        "the labels are shifted wrongly or the gradient is; check utils/training/step/loss.py",
    )


def accumulation(config: ModelConfig, loss: Loss, rows: int = 8) -> CheckResult:
    """Prove that 1 batch of 8 rows gives the gradient of 8 micro-batches of 1 row."""
    model: Any = build_model(small_architecture(config, len(CONTROL_TOKENS) + CYCLE))
    model.train()
    batch = len(CONTROL_TOKENS) + torch.randint(
        CYCLE, (rows, CYCLE_TOKENS), generator=torch.Generator().manual_seed(1)
    )
    normalizer = rows * (CYCLE_TOKENS - 1)
    whole = _gradient(model, [batch], loss, normalizer)
    split = _gradient(model, list(batch.split(1)), loss, normalizer)
    plain = _gradient(model, [batch], loss, None)
    difference = max(float((other - whole).norm() / whole.norm()) for other in (split, plain))
    return CheckResult(
        f"accumulation 1 x {rows} equals {rows} x 1",
        f"gradients differ by {difference:.1e} of their norm",
        f"at most {GRADIENT_TOLERANCE:.0e}",
        difference <= GRADIENT_TOLERANCE,
        "micro-batches are weighted wrongly; check the normalizer in utils/training/step/loss.py",
    )


def _gradient(
    model: Any, batches: list[torch.Tensor], loss: Loss, normalizer: int | None
) -> torch.Tensor:
    """Return the summed gradient of all parameters as one vector."""
    model.zero_grad()
    for batch in batches:
        loss(model, batch, normalizer).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).clone()

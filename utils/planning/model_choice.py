"""Chooses model size, tokenizer and batch for a time box, and says why.

The rule: the largest size that fits the memory and sees enough tokens per parameter within the box,
counting at most `MAX_PASSES` passes over the corpus; else the smallest. Small runs get a small
tokenizer, short rows and small steps (best bits per byte at equal time on a CPU); big ones the
values of config/SIZE.json.

Reference: about 20 tokens per parameter are optimal (Hoffmann et al., 2022) and 10 near it; after
some 16 passes repeated data teach little (Muennighoff et al., 2023). In runs of minutes the first
few tokens per parameter teach so much that far fewer are enough (ARCHITECTURE.md has the figures).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from utils.config.model import ModelConfig
from utils.config.pretrain import PretrainConfig
from utils.machine.probe import Speed
from utils.model.sizing import count_parameters, flops_per_token, memory_bytes
from utils.words import count, duration

TOKENS_PER_PARAMETER = 10
TOKENS_PER_PARAMETER_TINY = 0.3
"""The same for models of less than `TINY_PARAMETERS`: measured at 0.17, where 1.6M parameters are
far ahead of 8.4M, and at 0.8, where 8.4M do well."""
TINY_PARAMETERS = 10_000_000
MAX_PASSES = 16
UTILISATION = {"cpu": 0.5, "cuda": 0.3, "mps": 0.3}
"""Share of the matrix-product rate that training reaches, all overheads counted."""
SHORT_RUN_TOKENS = 200_000_000
"""Below this many tokens a small tokenizer and short rows win."""
SHORT_RUN = {"vocab_size": 8192, "sequence_length": 256, "batch_size": 16,
             "gradient_accumulation_steps": 1}  # fmt: skip
"""The most that a short run takes of each."""
BYTES_PER_TOKEN = 3.5
"""Bytes of English per token of a vocabulary of 8192: guesses the tokens of an unread corpus."""
SHAPE = frozenset({"n_layer", "d_model", "n_head", "num_key_value_heads", "d_ff"})
"""With one of these from the user only the smallest size is changed; the rest would contradict."""
MEMORY_SHARE = 0.7
"""Of the free memory; the micro-batch shrinks to fit, so a size needs room for one row."""
VOCABULARIES = ((2_000_000, 8192), (500_000, 4096), (150_000, 2048), (0, 1024))
"""(bytes of corpus from which, vocabulary): no more can be learned than the text holds."""


@dataclass(frozen=True)
class ModelPlan:
    """The model that a session trains."""

    settings: dict[str, Any]
    """Shape and batch: the content of pretrain_config.json."""
    parameters: int
    tokens_per_s: float
    """Expected training speed."""
    tokens: int
    """Tokens expected within the planned time."""
    memory_bytes: int
    """Least memory: weights, gradients, optimizer, activations of one row."""
    reason: str = ""
    """Why this one, in one sentence."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step on one process."""
        settings = self.settings
        rows = settings["batch_size"] * settings["gradient_accumulation_steps"]
        return rows * settings["sequence_length"]

    def max_steps(self, corpus_bytes: float | None) -> int | None:
        """Return the steps after which the corpus was seen `MAX_PASSES` times (None: unknown)."""
        if corpus_bytes is None:
            return None
        return math.ceil(MAX_PASSES * corpus_bytes / BYTES_PER_TOKEN / self.tokens_per_step)


def choose_model(
    candidates: Sequence[Path],
    train_s: float,
    speed: Speed,
    corpus_bytes: float | None,
    overrides: Mapping[str, Any],
) -> ModelPlan:
    """Return the plan for `train_s` seconds of pre-training.

    `candidates` are model configurations, smallest first; `corpus_bytes` is None when nobody knows;
    `overrides` are the user's own pre-training settings and win over everything here.
    """
    own_shape = set(overrides) & SHAPE
    plans = [
        _plan(path, train_s, speed, corpus_bytes, overrides)
        for path in (candidates[:1] if own_shape else candidates)
    ]
    limit = MEMORY_SHARE * speed.memory_bytes
    fitting = [plan for plan in plans if plan.memory_bytes <= limit]
    rich = [plan for plan in fitting if plan.tokens >= enough_tokens(plan.parameters)]
    chosen = rich[-1] if rich else plans[0]
    return replace(chosen, reason=_reason(chosen, plans, train_s, bool(rich), chosen in fitting))


def enough_tokens(parameters: int) -> float:
    """Return the tokens from which a model of this size is better than a smaller one."""
    return _tokens_per_parameter(parameters) * parameters


def _tokens_per_parameter(parameters: int) -> float:
    return TOKENS_PER_PARAMETER_TINY if parameters < TINY_PARAMETERS else TOKENS_PER_PARAMETER


def _plan(
    path: Path,
    train_s: float,
    speed: Speed,
    corpus_bytes: float | None,
    overrides: Mapping[str, Any],
) -> ModelPlan:
    own = PretrainConfig.read_file(path)
    limits = SHORT_RUN | {"vocab_size": vocabulary_for(corpus_bytes)}
    short = {name: min(own.get(name, most), most) for name, most in limits.items()}
    plan = expect_model({**own, **short, **overrides}, train_s, speed, corpus_bytes)
    if plan.tokens >= SHORT_RUN_TOKENS:
        return expect_model({**own, **overrides}, train_s, speed, corpus_bytes)
    return plan


def vocabulary_for(corpus_bytes: float | None) -> int:
    """Return the vocabulary that a corpus of so many bytes (None: unknown) fills in a short run."""
    if corpus_bytes is None:
        return SHORT_RUN["vocab_size"]
    return next(most for least, most in VOCABULARIES if corpus_bytes >= least)


def expect_model(
    settings: Mapping[str, Any], train_s: float, speed: Speed, corpus_bytes: float | None
) -> ModelPlan:
    """Return what `train_s` seconds of training with these settings amount to."""
    values = PretrainConfig.build(dict(settings)).model_dump()
    shape = ModelConfig(**{name: values[name] for name in ModelConfig.model_fields})
    wanted = {**settings, **shape.model_dump()}
    for name in ("batch_size", "gradient_accumulation_steps"):
        wanted[name] = values[name]
    tokens_per_s = UTILISATION[speed.device] * speed.flops / flops_per_token(shape)
    tokens = train_s * tokens_per_s
    if corpus_bytes is not None:
        tokens = min(tokens, MAX_PASSES * corpus_bytes / BYTES_PER_TOKEN)
    parameters = count_parameters(shape).total
    return ModelPlan(wanted, parameters, tokens_per_s, int(tokens), memory_bytes(shape, 1))


def _reason(
    chosen: ModelPlan, plans: Sequence[ModelPlan], train_s: float, is_rich: bool, fits: bool
) -> str:
    ratio = chosen.tokens / chosen.parameters
    text = (
        f"about {count(chosen.tokens)} tokens in {duration(train_s)} of training "
        f"({chosen.tokens_per_s:,.0f} tokens/s expected), {ratio:.2g} per parameter"
    )
    if not fits:
        return f"{text}; the smallest size, though its memory is tight on this machine"
    if not is_rich:
        return f"{text}; the smallest size, because larger ones would see even fewer"
    larger = plans[plans.index(chosen) + 1 :]
    if larger:
        next_ratio = larger[0].tokens / larger[0].parameters
        return (
            f"{text}; {larger[0].settings['model_name']} would see only {next_ratio:.2g} "
            f"({_tokens_per_parameter(larger[0].parameters):g} are wanted) or not fit the memory"
        )
    return f"{text}; the largest size there is"

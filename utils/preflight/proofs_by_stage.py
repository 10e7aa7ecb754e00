"""Yields the proofs of each stage, on the real data and checkpoint of a run (a bounded sample).

Knows nothing about what happens when one fails: see `utils.preflight.runner`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch

from utils.chat.rows import build_dpo_rows, build_sft_rows, read_conversations, read_preferences
from utils.chat.templates import TEMPLATES, TextEncoder
from utils.config.model import ModelConfig
from utils.data.tokens.shards import TokenShards, iter_documents
from utils.generation.prompts import chat_prompt
from utils.model.architecture import build_model
from utils.model.checkpoints import LoadedModel
from utils.preflight import chat, signal, text, weights
from utils.preflight.result import CheckResult
from utils.tokenizers.control_tokens import CONTROL_TOKENS, ControlIds
from utils.tokenizers.load import load_tokenizer
from utils.tokenizers.transformers_files import load_hf_tokenizer
from utils.training.step.loss import language_model_loss

DOCUMENTS = 50
"""Documents of each split whose text and ids are compared."""
CHARACTERS = 20_000
"""Longest document compared; encoding one takes about 1 ms per 1000 characters."""
ROWS_CHARACTERS = 5_000_000
"""Text of a fine-tuning file whose ids and labels are proved: every row of most files (the 6,000 of
the practice data are a third of it); of a larger file rows spread evenly over it."""
CONVERSATIONS = 300
"""Of these, rows that are also laid out as serving does, which takes longer."""
LOSS_ROWS, LOSS_TOKENS = 4, 128
"""Validation tokens for the initial loss."""
PROMPT_LENGTHS = (12, 7)
"""Tokens of the prompts for the cache: two lengths, so that one is padded."""

Proofs = Iterator[CheckResult]
Row = TypeVar("Row")


def signal_proofs(config: ModelConfig) -> Proofs:
    """Yield the proofs that need no data: loss, accumulation, cache, on a small model."""
    yield signal.next_token(config, language_model_loss)
    yield signal.accumulation(config, language_model_loss)
    small = build_model(signal.small_architecture(config, config.vocab_size))
    yield weights.cached_equals_uncached(small, _prompts(small))


def data_proofs(config: ModelConfig, data_dir: Path) -> Proofs:
    """Yield the proofs about prepared data and a fresh model of the full size."""
    tokenizer = load_tokenizer(data_dir / "tokenizer")
    documents = [pair for split in ("train", "val") for pair in documents_of(data_dir, split)]
    texts = [document for document, _ in documents]
    yield text.round_trip(texts, tokenizer)
    encoder = TextEncoder(load_hf_tokenizer(data_dir / "tokenizer"))
    yield text.tokenizers_agree(texts, tokenizer, encoder.encode)
    yield text.shards_hold_text(documents, tokenizer)
    rows = validation_rows(data_dir, config.sequence_length)
    yield text.vocabulary_fits(int(rows.max()), tokenizer.vocab_size, config.vocab_size)
    model = build_model(config, control=tokenizer.ids)
    yield signal.initial_loss(model, rows, language_model_loss)
    small = build_model(signal.small_architecture(config, config.vocab_size), control=tokenizer.ids)
    card = {"stage": "pretrain", "template": None, "tokenizer_sha256": tokenizer.sha256}
    yield weights.save_and_load(small, data_dir / "tokenizer", card)


def documents_of(data_dir: Path, split: str) -> list[tuple[str, list[int]]]:
    """Return (text, ids with EOS) of the first documents of a split that are not too long."""
    shards = TokenShards.open(data_dir, split)
    pairs = []
    for number, document in enumerate(islice(iter_documents(data_dir, split), DOCUMENTS)):
        start, end = shards.document_offsets[number : number + 2].tolist()
        if len(document["text"]) <= CHARACTERS:
            pairs.append((document["text"], shards.tokens[start:end].tolist()))
    return pairs


def validation_rows(data_dir: Path, context: int) -> torch.Tensor:
    """Return int64 [B, T] of the first validation tokens (a short split gives one short row)."""
    tokens = TokenShards.open(data_dir, "val").tokens
    length = min(LOSS_TOKENS, context, len(tokens))
    count = max(1, min(LOSS_ROWS, len(tokens) // length))
    return torch.tensor(tokens[: count * length].tolist()).view(count, length)


def fresh_chat_model(config: ModelConfig, data_dir: Path, template: str) -> LoadedModel:
    """Return a small untrained model with the tokenizer of `data_dir` and a template.

    It stands in where there is no checkpoint yet: layouts and masks do not depend on weights.
    """
    tokenizer = load_hf_tokenizer(data_dir / "tokenizer")
    small = signal.small_architecture(config, config.vocab_size, config.sequence_length)
    model = build_model(small, control=ControlIds(tokenizer.eos_token_id, tokenizer.pad_token_id))
    return LoadedModel(model.eval(), tokenizer, data_dir, {"template": template})


def with_template(loaded: LoadedModel, template: str) -> LoadedModel:
    """Return `loaded` as it will be after fine-tuning with `template`."""
    if loaded.card.get("template") == template:
        return loaded
    # No stage: whatever chat template its tokenizer has belongs to the earlier layout.
    card = {**loaded.card, "template": template, "stage": None}
    return replace(loaded, card=card)


def sft_proofs(loaded: LoadedModel, dataset: Path, max_length: int | None) -> Proofs:
    """Yield the proofs of stage 03 about its conversations."""
    rows, _ = read_conversations(dataset)
    template, encoder = loaded.template, loaded.encoder
    limit = max_length or loaded.context_length
    sizes = [_characters(messages) for messages in rows]
    proved = spread(rows, rows_within(ROWS_CHARACTERS, sizes))
    built = build_sft_rows(proved, template, encoder, limit)
    yield chat.answers_are_learned(built, template.stop_id(encoder))
    yield from _layout_proofs(loaded, spread(built.conversations, CONVERSATIONS))


def dpo_proofs(loaded: LoadedModel, dataset: Path, max_length: int | None) -> Proofs:
    """Yield the proofs of stage 04 about its pairs (its own first step proves the loss ln 2)."""
    rows, _ = read_preferences(dataset)
    template, encoder = loaded.template, loaded.encoder
    limit = max_length or loaded.context_length
    sizes = [_characters(row.prompt) + len(row.chosen) + len(row.rejected) for row in rows]
    proved = spread(rows, rows_within(ROWS_CHARACTERS, sizes))
    built = build_dpo_rows(proved, template, encoder, limit)
    yield chat.preferences_are_learnable(built, template.stop_id(encoder))
    conversations = [
        [*row.prompt, {"role": "assistant", "content": row.chosen}]
        for row in spread(rows, CONVERSATIONS)
        if len(template.encode_prompt(row.prompt, encoder)) <= loaded.context_length
    ]
    yield from _layout_proofs(loaded, conversations)


def checkpoint_proofs(loaded: LoadedModel) -> Proofs:
    """Yield the proof about the cache on the real weights."""
    yield weights.cached_equals_uncached(loaded.model, _prompts(loaded.model))


def _layout_proofs(loaded: LoadedModel, conversations: Sequence[chat.Conversation]) -> Proofs:
    """Yield: serving asks as training did, and so does apply_chat_template."""
    template, encoder = loaded.template, loaded.encoder

    def serve(messages: chat.Conversation) -> list[int]:
        return chat_prompt(loaded, messages, 0)[0]

    yield chat.training_equals_serving(conversations, template, encoder, serve)
    control = {*CONTROL_TOKENS, *loaded.tokenizer.all_special_tokens}
    plain = [messages for messages in conversations if not _has_any(control, messages)]
    yield chat.chat_template_agrees(plain, template, encoder, _jinja_prompt(loaded))


def _jinja_prompt(loaded: LoadedModel) -> Any:
    """Return a function that asks through `apply_chat_template`, as other programs do.

    The checkpoint's own template where it was tuned with it, else the one that 03 will write.
    """
    own = getattr(loaded.tokenizer, "chat_template", None)
    is_tuned = loaded.card.get("stage") in ("sft", "dpo")
    jinja = own if own and is_tuned else TEMPLATES[loaded.template.name].jinja

    def apply(messages: chat.Conversation) -> list[int]:
        rendered = loaded.tokenizer.apply_chat_template(
            messages, chat_template=jinja, add_generation_prompt=True, tokenize=False
        )
        return loaded.tokenizer.encode(rendered, add_special_tokens=False)

    return apply


def _has_any(control: set[str], messages: chat.Conversation) -> bool:
    """Tell whether a text spells a control token, which a rendered string cannot keep apart."""
    return any(token in message["content"] for message in messages for token in control)


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """Return at most `count` rows, the first and others evenly spread over all."""
    if len(rows) <= count:
        return list(rows)
    return [rows[number * len(rows) // count] for number in range(count)]


def rows_within(limit: int, sizes: Sequence[int]) -> int:
    """Return how many rows of the mean of `sizes` make up `limit`: all of them when they fit."""
    return max(1, len(sizes) * limit // max(sum(sizes), limit))


def _characters(messages: chat.Conversation) -> int:
    return sum(len(message["content"]) for message in messages)


def _prompts(model: Any) -> list[list[int]]:
    """Return prompts of fixed ids of two lengths, each behind the separator."""
    vocab_size, eos_id = int(model.config.vocab_size), int(model.config.bos_token_id or 0)
    return [
        [eos_id, *(4 + (7919 * (at + 31 * row)) % max(1, vocab_size - 4) for at in range(length))]
        for row, length in enumerate(PROMPT_LENGTHS)
    ]

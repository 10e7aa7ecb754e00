"""Writes answers with a key/value cache: one, streamed, or many together.

The forward pass is the Hugging Face model's own, so greedy answers equal `model.generate`.
A finished row leaves its batch.
Knows nothing about HTTP or terminals.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from transformers import PreTrainedModel

from utils.chat.templates import Message
from utils.errors import DataError
from utils.generation.batch import Batch
from utils.generation.incremental_text import IncrementalText
from utils.generation.prompts import chat_prompt, check_room
from utils.generation.sampling import Sampling, new_generator, next_tokens
from utils.model.checkpoints import LoadedModel

MAX_BATCH_ROWS = 32
MAX_BATCH_TOKENS = 32_768
"""Rows times their longest prompt plus answer: bounds the cache (400 MB for 6 x 256 in fp32)."""


@dataclass(frozen=True)
class Generated:
    """An answer."""

    ids: list[int]
    """Its tokens, without the stop token."""
    stopped: bool
    """Whether it ended by itself (stop token or stop text) and was not cut off."""
    text: str
    """Its text, without control tokens."""


class Stream(Iterator[str]):
    """Pieces of text as they are written, none of which splits a character.

    `result` is the answer so far, or all of it; `should_stop` is asked before each token.

    Raises:
        DataError: prompt and max_new_tokens exceed the context.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        prompt_ids: Sequence[int],
        settings: Sampling,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.prompt_tokens = len(prompt_ids)
        self.left_out = 0
        """Oldest messages of a conversation that did not fit."""
        self._row = _Row(loaded, prompt_ids, settings)
        self._steps = _decode(loaded, [self._row], settings, should_stop)
        self._given = 0

    def __next__(self) -> str:
        for _ in self._steps:
            if piece := self._new_text():
                return piece
        self._row.result()  # releases what was held back
        if piece := self._new_text():
            return piece
        raise StopIteration

    @property
    def result(self) -> Generated:
        """The answer as far as it is written."""
        return self._row.result()

    def skip(self, prefix: str) -> None:
        """Leave `prefix` out where the text begins with it."""
        self._row.text.skip = prefix

    def close(self) -> None:
        """Stop writing."""
        self._steps.close()

    def _new_text(self) -> str:
        text = self._row.text.text[self._given :]
        self._given += len(text)
        return text


def answer_stream(
    loaded: LoadedModel,
    messages: Sequence[Message],
    settings: Sampling,
    should_stop: Callable[[], bool] | None = None,
) -> Stream:
    """Return a stream of the answer to a conversation, laid out in the model's template.

    Raises:
        DataError: it is no conversation, or its last message is too long for the context.
    """
    prompt_ids, left_out = chat_prompt(loaded, messages, settings.max_new_tokens)
    pieces = Stream(loaded, prompt_ids, settings, should_stop)
    pieces.left_out = left_out
    pieces.skip(loaded.template.answer_prefix)
    return pieces


def answer(
    loaded: LoadedModel,
    messages: Sequence[Message],
    settings: Sampling,
    should_stop: Callable[[], bool] | None = None,
) -> Generated:
    """Return the whole answer to a conversation; see `answer_stream`."""
    pieces = answer_stream(loaded, messages, settings, should_stop)
    for _ in pieces:
        pass
    return pieces.result


def generate_batch(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], settings: Sampling
) -> list[Generated]:
    """Return the continuation of each prompt, in order; the same as one by one, but faster.

    Raises:
        DataError: a prompt and max_new_tokens exceed the context.
    """
    rows = [_Row(loaded, prompt, settings) for prompt in prompts]
    for places in _batches([len(prompt) for prompt in prompts], settings.max_new_tokens):
        for _ in _decode(loaded, [rows[place] for place in places], settings):
            pass
    return [row.result() for row in rows]


def _batches(lengths: Sequence[int], max_new_tokens: int) -> Iterator[list[int]]:
    """Yield places of prompts of similar length, as many as may be decoded together."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        tokens = (len(batch) + 1) * (lengths[place] + max_new_tokens)
        if batch and (len(batch) == MAX_BATCH_ROWS or tokens > MAX_BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def stop_ids(loaded: LoadedModel) -> frozenset[int]:
    """Return the tokens that end an answer: the model's own and the template's."""
    config = loaded.model.generation_config
    own = config.eos_token_id if config is not None else None
    ids: set[int] = {own} if isinstance(own, int) else set(own or ())
    with suppress(DataError):  # a foreign tokenizer may not have it: the model's own ones remain
        ids.add(loaded.template.stop_id(loaded.encoder))
    return frozenset(ids)


class _Row:
    """One answer being written."""

    def __init__(self, loaded: LoadedModel, prompt_ids: Sequence[int], settings: Sampling) -> None:
        check_room(loaded, len(prompt_ids), settings.max_new_tokens)
        self.prompt_ids = prompt_ids
        self.ids: list[int] = []
        self.text = IncrementalText(loaded.tokenizer, settings.stop)
        self.generator = new_generator(settings.seed)
        self.ended_by_token = False
        self._stop_ids = stop_ids(loaded)
        self._max_new_tokens = settings.max_new_tokens

    @property
    def is_done(self) -> bool:
        return self._stopped or len(self.ids) >= self._max_new_tokens

    @property
    def _stopped(self) -> bool:
        return self.ended_by_token or self.text.hit_stop

    def add(self, token_id: int) -> None:
        if token_id in self._stop_ids:
            self.ended_by_token = True
        else:
            self.ids.append(token_id)
            self.text.add(token_id)

    def result(self) -> Generated:
        self.text.finish()
        return Generated(list(self.ids), self._stopped, self.text.text)


def _decode(
    loaded: LoadedModel,
    rows: list[_Row],
    settings: Sampling,
    should_stop: Callable[[], bool] | None = None,
) -> Generator[None]:
    """Write all rows to their end; yield after each step in which every active row got a token."""
    with _eval_mode(loaded.model):
        batch = Batch(loaded.model, [row.prompt_ids for row in rows])
        while rows and not (should_stop is not None and should_stop()):
            generators = [row.generator for row in rows]
            drawn = next_tokens(batch.logits, settings, generators)
            for row, token_id in zip(rows, drawn, strict=True):
                row.add(token_id)
            yield
            active = [place for place, row in enumerate(rows) if not row.is_done]
            rows = [rows[place] for place in active]
            if rows:
                batch.step([drawn[place] for place in active], active)


@contextmanager
def _eval_mode(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout (and gradient checkpointing, which forbids a cache) off for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)

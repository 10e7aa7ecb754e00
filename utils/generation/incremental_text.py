"""Turns token ids into text piece by piece while they are being written.

A piece never ends inside a character: a run of byte tokens (`<0xE2>`) is held back until it is
over, and text that may be the beginning of a stop text until that is decided. The pieces together
are what `tokenizer.decode` makes of all ids.
"""

import re
from typing import Any

BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
UNFINISHED = "\ufffd"
"""What a tokenizer without byte pieces (GPT-2's kind) gives for half a character."""


class IncrementalText:
    """The text of one answer as it grows."""

    def __init__(self, tokenizer: Any, stop: tuple[str, ...] = (), skip: str = "") -> None:
        self.stop = stop
        self.skip = skip
        """Left out at the very beginning: a template may let the model write a space there."""
        self.text = ""
        """What has been given out so far."""
        self.hit_stop = False
        """Whether a stop text was met; the text ends in front of it."""
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._context = 0  # decoding starts here: some tokenizers drop a space at a text's start
        self._read = 0  # ids up to here have become text
        self._held = ""  # text that may be the beginning of a stop text

    def add(self, token_id: int) -> str:
        """Take one more token; return the text that is certain now, often one word."""
        if self.hit_stop:
            return ""
        self._ids.append(token_id)
        if BYTE_PIECE.fullmatch(str(self._tokenizer.convert_ids_to_tokens(token_id))):
            return ""
        return self._release(self._unread(), is_last=False)

    def finish(self) -> str:
        """Return what was held back when no token follows."""
        if self.hit_stop:
            return ""
        text = self._decode(self._context, len(self._ids))
        text = text[len(self._decode(self._context, self._read)) :]
        self._read = len(self._ids)
        return self._release(text, is_last=True)

    def _unread(self) -> str:
        """Return the text of the ids after `_read`, or "" while it ends inside a character."""
        text = self._decode(self._context, len(self._ids))
        if text.endswith(UNFINISHED):
            return ""
        text = text[len(self._decode(self._context, self._read)) :]
        self._context, self._read = self._read, len(self._ids)
        return text

    def _decode(self, start: int, end: int) -> str:
        return self._tokenizer.decode(
            self._ids[start:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def _release(self, text: str, *, is_last: bool) -> str:
        text = self._held + text
        found = [text.index(stop) for stop in self.stop if stop in text]
        if found:
            self.hit_stop = True
            text, self._held = text[: min(found)], ""
        elif not is_last:
            keep = max((_overlap(text, stop) for stop in self.stop), default=0)
            text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        else:
            self._held = ""
        if text and not self.text:
            text, self.skip = text.removeprefix(self.skip), ""
        self.text += text
        return text


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` are the beginning of `stop`."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0

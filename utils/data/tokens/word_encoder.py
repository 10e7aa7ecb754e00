"""Encodes texts exactly as a tokenizer does, many times faster: words met before are looked up.

Byte-pair encoding merges neighbours only within a piece of the vocabulary, so a text may be cut
wherever no piece has both sides of the cut: the parts encode on their own. Whether that holds for a
way of cutting is checked against every piece; where it does not, the tokenizer gets whole texts.
The same holds for the best sum of scores of a unigram model, whose scores are so made that sums are
exact. A byte-level tokenizer also looks at the neighbours of blanks, so that its texts are cut in
front of them only: see `utils.tokenizers.json_file`.
Words are known by 64-bit hashes (two of a million share one with probability 3e-8), all of a batch
are looked up together, and only new ones reach the tokenizer.

Legend: B bytes of a batch, W its words, T its tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np

from utils.data.dedup.shingling import powers
from utils.data.tokens.shards import DTYPES, token_dtype
from utils.tokenizers.tokenizer import Cut, Tokenizer

BATCH_BYTES = 200_000
MAX_CHARACTERS = 500_000
"""A longer text goes to the tokenizer, so that the words of a batch always fit MAX_WORDS."""
MAX_WORDS = 1 << 19
"""Words remembered (about 40 MB); when these are full, all are forgotten."""
SLOTS = 1 << 20
END, LINE, BLANK, LETTER, OTHER = range(5)
MIX = np.uint64(0xD6E8FEB86659FD93)


def _classes(letters_apart: bool, lines_apart: bool = True) -> bytes:
    """Return the class of each byte; bytes beyond ASCII are parts of letters."""
    table = bytearray([OTHER if letters_apart else LETTER]) * 128 + bytearray([LETTER]) * 128
    for byte in range(128):
        if chr(byte).isalpha():
            table[byte] = LETTER
    table[0], table[ord("\n")], table[ord(" ")] = END, LINE if lines_apart else BLANK, BLANK
    return bytes(table)


class WordEncoder:
    """A tokenizer that remembers words."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.dtype = np.dtype(DTYPES[token_dtype(tokenizer.vocab_size)])
        self._tokenizer = tokenizer
        ways = WAYS[tokenizer.cut]
        self._table = next(filter(_keeps(tokenizer.text_pieces()), ways), None) if ways else None
        self._forget()

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of all texts in turn, each closed by EOS, and how many each has."""
        prefix, eos = self._tokenizer.prefix, self._tokenizer.eos_id
        parts = [np.empty(0, self.dtype)]
        lengths = np.zeros(len(texts), np.uint32)
        for start, batch in _batches(texts):
            if self._table is None or (len(batch) == 1 and _is_odd(batch[0])):
                rows = [np.array([*self._tokenizer.encode(text), eos]) for text in batch]
                ids, counts = np.concatenate(rows).astype(self.dtype), [len(row) for row in rows]
            else:
                whole = (prefix + text if text else "" for text in batch)
                ids, counts = self._encode("\0".join(whole).encode() + b"\0")
            parts.append(ids)
            lengths[start : start + len(batch)] = counts
        return np.concatenate(parts), lengths

    def _encode(self, data: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Return ids [T] of texts that each end with NUL, and the tokens of each text."""
        kinds = np.frombuffer(data.translate(self._table), np.uint8)
        begins = _begins(kinds)
        words = self._words(data, begins)
        counts = self._counts[words]
        ends = np.cumsum(counts)
        places = np.repeat(self._starts[words] - (ends - counts), counts)
        places += np.arange(len(places))
        closing = ends[kinds[begins] == END]
        return self._ids[places], np.diff(closing, prepend=0)

    def _words(self, data: bytes, begins: np.ndarray) -> np.ndarray:
        """Return the number of each word [W]; new ones are encoded and remembered."""
        values = np.frombuffer(data, np.uint8)
        up, down = powers(len(values))
        ends = np.append(begins[1:], len(data))
        hashes = np.add.reduceat(up[: len(values)] * values, begins) * down[begins]
        hashes += (ends - begins).astype(np.uint64)
        hashes ^= hashes >> np.uint64(32)
        hashes *= MIX
        hashes ^= hashes >> np.uint64(29)
        hashes |= np.uint64(1)  # 0 marks an empty slot
        words = self._find(hashes)
        missing = np.flatnonzero(words < 0)
        if len(missing):
            _, first = np.unique(hashes[missing], return_index=True)
            if self._size + len(first) > MAX_WORDS:
                self._forget()
                first, missing = np.unique(hashes, return_index=True)[1], np.arange(len(hashes))
            new = missing[first]
            places = zip(begins[new].tolist(), ends[new].tolist(), strict=True)
            self._add(hashes[new], [data[begin:end] for begin, end in places])
            words[missing] = self._find(hashes[missing])
        return words

    def _find(self, hashes: np.ndarray) -> np.ndarray:
        """Return the number of each word, -1 where it is new."""
        slots = (hashes >> np.uint64(1)).astype(np.int64) & (SLOTS - 1)
        held = self._keys[slots]
        right = held == hashes
        words = np.where(right, self._numbers[slots], -1)
        open_ones = np.flatnonzero(~right & (held != 0))  # a few whose slot another word has
        while len(open_ones):
            slots[open_ones] = (slots[open_ones] + 1) & (SLOTS - 1)
            held = self._keys[slots[open_ones]]
            right = held == hashes[open_ones]
            words[open_ones[right]] = self._numbers[slots[open_ones[right]]]
            open_ones = open_ones[~right & (held != 0)]
        return words

    def _add(self, hashes: np.ndarray, words: list[bytes]) -> None:
        """Encode and remember new words, each once."""
        tokenizer = self._tokenizer
        rows = [
            [tokenizer.eos_id] if word == b"\0" else tokenizer.encode_part(word.decode())
            for word in words
        ]
        counts = np.fromiter(map(len, rows), np.int64, len(rows))
        ends = np.cumsum(counts) + self._used
        while ends[-1] > len(self._ids):
            self._ids = np.concatenate((self._ids, np.zeros_like(self._ids)))
        ids = np.fromiter(chain.from_iterable(rows), self.dtype, int(counts.sum()))
        self._ids[self._used : ends[-1]] = ids
        numbers = np.arange(self._size, self._size + len(rows))
        self._starts[numbers], self._counts[numbers] = ends - counts, counts
        self._used, self._size = int(ends[-1]), self._size + len(rows)
        self._place(hashes, numbers)

    def _place(self, hashes: np.ndarray, numbers: np.ndarray) -> None:
        """Put new words into the first free slots; of several that want one, one gets it."""
        slots = (hashes >> np.uint64(1)).astype(np.int64) & (SLOTS - 1)
        open_ones = np.arange(len(hashes))
        while len(open_ones):
            wanted = slots[open_ones]
            free = self._keys[wanted] == 0
            self._keys[wanted[free]] = hashes[open_ones[free]]
            placed = self._keys[wanted] == hashes[open_ones]
            self._numbers[wanted[placed]] = numbers[open_ones[placed]]
            open_ones = open_ones[~placed]
            slots[open_ones] = (slots[open_ones] + 1) & (SLOTS - 1)

    def _forget(self) -> None:
        self._size = self._used = 0
        self._keys = np.zeros(SLOTS, np.uint64)
        self._numbers = np.zeros(SLOTS, np.int32)
        self._starts = np.zeros(MAX_WORDS, np.int64)
        self._counts = np.zeros(MAX_WORDS, np.int64)
        self._ids = np.zeros(4 * MAX_WORDS, self.dtype)


def _begins(kinds: np.ndarray) -> np.ndarray:
    """Return where words begin: where the class changes, but not between blanks and a word."""
    begin = np.ones(len(kinds), bool)
    before, here = kinds[:-1], kinds[1:]
    begin[1:] = (here != before) & ((before != BLANK) | (here < BLANK)) | (here == END)
    return np.flatnonzero(begin)


def _keeps(pieces: list[bytes]) -> Callable[[bytes], bool]:
    """Return a test whether a way of cutting cuts none of the pieces."""

    def keeps(table: bytes) -> bool:
        return all(
            len(_begins(np.frombuffer(piece.translate(table), np.uint8))) == 1 for piece in pieces
        )

    return keeps


WAYS = {
    Cut.CLASSES: (_classes(letters_apart=True), _classes(letters_apart=False)),
    Cut.BLANKS: (_classes(letters_apart=False, lines_apart=False),),
    Cut.NOWHERE: (),
}
"""The finest first: fewer different words."""


def _is_odd(text: str) -> bool:
    """Return whether a text is too long, or has what closes texts here."""
    return len(text) > MAX_CHARACTERS or "\0" in text


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield runs of texts and the number of the first; odd texts come alone."""
    start = size = 0
    for number, text in enumerate(texts):
        if _is_odd(text):
            if number > start:
                yield start, list(texts[start:number])
            yield number, [text]
            start, size = number + 1, 0
            continue
        size += len(text)
        if size >= BATCH_BYTES:
            yield start, list(texts[start : number + 1])
            start, size = number + 1, 0
    if start < len(texts):
        yield start, list(texts[start:])

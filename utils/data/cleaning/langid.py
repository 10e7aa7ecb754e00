"""py3langid's model for many texts at once: the automaton steps through all of them together.

The same features, scores and probabilities as `LanguageIdentifier.rank` (a test compares them), in
a fraction of the time, which there goes into a Python loop over bytes.
"""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

TEXTS_AT_ONCE = 1024


class LanguageModel:
    """Naive Bayes over byte n-grams that an automaton finds."""

    def __init__(self) -> None:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self.labels: list[str] = list(model.nb_classes)
        self._moves = np.asarray(model.tk_nextmove, np.int32)
        self._rows = np.asarray(model.tk_row, np.int32) << 8
        self._feature_of = np.asarray(model.tk_output, np.int32)
        self._table = np.asarray(model.nb_ptc, np.float32)
        self._bias = np.asarray(model.nb_pc, np.float32)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probability of each label, float32, shape [texts, labels]; sums are 1."""
        parts = [
            self._probabilities([_encoded(text) for text in texts[start : start + TEXTS_AT_ONCE]])
            for start in range(0, len(texts), TEXTS_AT_ONCE)
        ]
        return np.concatenate([np.empty((0, len(self.labels)), np.float32), *parts])

    def _probabilities(self, texts: list[bytes]) -> np.ndarray:
        scores = np.zeros((len(texts), len(self.labels)), np.float32)
        pairs, counts = np.unique(self._features(texts), return_counts=True)
        numbers, features = np.divmod(pairs, len(self._table))
        weights = np.log1p(counts, dtype=np.float32)
        ends = np.searchsorted(numbers, np.arange(len(texts) + 1)).tolist()
        for number, (start, end) in enumerate(pairwise(ends)):
            if start < end:
                found = self._table[features[start:end]]
                scores[number] = weights[start:end] @ found + self._bias
        lengths = np.array([[max(len(text), 1)] for text in texts])
        scores /= np.sqrt(lengths)  # a long text is no surer than its square root
        np.exp(scores - scores.max(axis=1, keepdims=True), out=scores)
        return scores / scores.sum(axis=1, keepdims=True)

    def _features(self, texts: list[bytes]) -> np.ndarray:
        """Return what the texts step through, as number of text * features + feature."""
        order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
        lengths = np.array([len(texts[number]) for number in order])
        longest = int(lengths[0])
        padded = b"".join(texts[number].ljust(longest, b"\0") for number in order)
        columns = np.frombuffer(padded, np.uint8).reshape(len(texts), longest).T
        columns = np.ascontiguousarray(columns, np.int32)
        base = np.array(order, np.int64) * len(self._table)
        found: list[np.ndarray] = [np.empty(0, np.int64)]
        state = np.zeros(len(texts), np.int32)
        for place in range(longest):
            still = int(np.searchsorted(-lengths, -place))  # texts longer than this
            state = self._moves[self._rows[state[:still]] + columns[place, :still]]
            feature = self._feature_of[state]
            seen = np.flatnonzero(feature >= 0)
            found.append(base[seen] + feature[seen])
        return np.concatenate(found)


def _encoded(text: str) -> bytes:
    """Return the bytes the model was trained on: composed, and not in capitals."""
    if text.isupper():
        text = text.lower()
    return unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")


@lru_cache(maxsize=1)
def language_model() -> LanguageModel:
    """Return the model, loaded once."""
    return LanguageModel()

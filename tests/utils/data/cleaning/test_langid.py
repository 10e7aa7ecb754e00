"""Many texts at once get the probabilities that py3langid gives to each."""

import random

import numpy as np
import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from utils.data.cleaning.langid import TEXTS_AT_ONCE, language_model


@pytest.fixture(scope="module")
def reference():
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _check(samples, reference):
    model = language_model()
    found = model.probabilities(samples)
    assert found.shape == (len(samples), len(model.labels))
    for sample, row in zip(samples, found, strict=True):
        summed = dict.fromkeys(model.labels, 0.0)
        for label, value in zip(model.labels, row.tolist(), strict=True):
            summed[label] += value
        wanted = dict(reference.rank(sample))
        assert summed.keys() == wanted.keys()
        assert np.allclose([summed[label] for label in wanted], list(wanted.values()), atol=2e-5)


def test_documents_get_the_same_probabilities(texts, reference):
    _check([text[:400] for text in texts], reference)


def test_odd_texts_get_the_same_probabilities(reference):
    chance = random.Random(4)
    letters = (
        "aeiounrst \u00e4\u00f6\u00fc\u0436\u0430\u0431\u4eca\u5929"
        "\u0e01\u0e32e\u0301\ud800\U0001f600\n1"
    )
    samples = ["", " ", "\u0301", "WHY IS THIS IN CAPITALS", "\ud800"]
    samples += ["".join(chance.choices(letters, k=chance.randrange(90))) for _ in range(1100)]
    assert len(samples) > TEXTS_AT_ONCE
    _check(samples, reference)


def test_the_languages_of_flores_get_the_same_probabilities(shared_data, reference):
    samples = []
    for path in sorted((shared_data / "multilingual" / "flores200").iterdir()):
        samples += path.read_text(encoding="utf-8").splitlines()[:4]
    assert len(samples) > 200
    _check(samples, reference)

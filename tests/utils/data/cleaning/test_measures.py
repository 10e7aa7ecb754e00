"""Measures of documents are those worked out by hand."""

import json
import random

import pytest

from utils.config.filters import PROFILES, Limit, load_profile
from utils.data.cleaning.batch import Rules, refine
from utils.data.cleaning.measures import MEASURES, Page
from utils.errors import ConfigError
from utils.reading.documents import Document

PROSE = "The cat sat on the mat, and it was warm. It slept there.\nA dog came by!"


@pytest.mark.parametrize(
    ("measure", "text", "value"),
    [
        ("words", PROSE, 17),
        ("mean_word_length", "a bb ccc", 2),
        ("hashes_per_word", "# one ## two", 3 / 4),
        ("ellipses_per_word", "so... it is \u2026", 2 / 4),
        ("words_with_letter", "a 1 b2 == \u00e9", 3 / 5),
        ("stop_words", "The end of THAT, that and", 4),
        ("bullet_lines", "- one\n\n  * two\nthree\n\u2022 four", 3 / 4),
        ("ellipsis_lines", "one...\ntwo\nthree\u2026 ", 2 / 3),
        ("duplicate_lines", "a\nb\na\n\na", 2 / 4),
        ("duplicate_line_characters", "aaa\nb\naaa", 3 / 7),
        ("duplicate_paragraphs", "a b\n\nc\n\na b", 1 / 3),
        ("duplicate_paragraph_characters", "a b\n\nc\n\na b", 3 / 7),
        ("lines_with_end", 'One.\nTwo\n"Three!"\nfour', 2 / 4),
        ("short_lines", "x" * 30 + "\n" + "y" * 29, 1 / 2),
        ("sentences", "One. Two? Three! (four.) v1.2 e.g", 4),
        ("curly_brackets", "a {b} {", 2),
        ("lorem_ipsum", "LOREM ipsum dolor, lorem  ipsum", 1),
        ("top_2gram_characters", "aa b aa b cc", 6 / 8),
        ("top_3gram_characters", "a b c d", 0),
        ("top_4gram_characters", "a b c d e a b c d", 8 / 9),
        ("duplicate_5gram_characters", "a b c d e f a b c d e", 5 / 11),
        ("duplicate_6gram_characters", "a b c d e f a b c d e", 0),
        ("duplicate_5gram_characters", "one two", 0),
    ],
)
def test_a_measure_is_that_worked_out_by_hand(measure, text, value):
    assert MEASURES[measure](Page(text)) == pytest.approx(value)


@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_is_defined_for_any_text(measure):
    for text in ("", "\n", "...", "one", "\u4eca\u5929" * 9):
        assert MEASURES[measure](Page(text)) >= 0


@pytest.mark.parametrize("size", [5, 7, 10])
def test_repeated_runs_are_those_of_a_plain_search(size):
    chance = random.Random(size)
    for _ in range(30):
        words = chance.choices(["a", "bb", "ccc"], k=60)
        seen, covered = set(), set()
        for at in range(len(words) - size + 1):
            gram = tuple(words[at : at + size])
            covered |= set(range(at, at + size)) if gram in seen else set()
            seen.add(gram)
        wanted = sum(len(words[at]) for at in covered) / sum(map(len, words))
        found = MEASURES[f"duplicate_{size}gram_characters"](Page(" ".join(words)))
        assert found == pytest.approx(wanted)


def test_every_measure_can_be_named_in_a_profile_and_no_other():
    named = Limit.model_fields["measure"].annotation.__args__
    assert set(named) == set(MEASURES)
    with pytest.raises(ConfigError, match="colour"):
        Limit.build({"measure": "colour", "min": 1, "source": "me"})
    with pytest.raises(ConfigError, match="neither min nor max"):
        Limit.build({"measure": "words", "source": "me"})


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.json")), ids=lambda path: path.stem)
def test_every_shipped_profile_is_valid_and_names_its_sources(path):
    profile = load_profile(path.stem)
    assert all(len(limit.source) > 5 for limit in profile.limits)
    assert bool(profile.dropped_lines) == bool(profile.dropped_lines_source)


def test_an_unknown_profile_names_the_known_ones_and_a_file_is_one(tmp_path):
    with pytest.raises(ConfigError, match="'wob': use one of books, code, docs, none, web, wiki"):
        load_profile("wob")
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"limits": [{"measure": "words", "min": 3, "source": "me"}]}))
    assert load_profile(str(own)).limits[0].min == 3
    own.write_text(json.dumps({"limit": []}))
    with pytest.raises(ConfigError, match=r"own.json: unknown key 'limit': did you mean 'limits'"):
        load_profile(str(own))


def _kept(profile, *texts):
    found = load_profile(profile)
    limits = tuple((limit.measure, limit.min, limit.max) for limit in found.limits)
    rules = Rules(1, 10**6, None, "py3langid", 0.5, None, limits, found.dropped_lines)
    documents = [Document(str(n), text, "s") for n, text in enumerate(texts)]
    result = refine((documents, rules))
    return len(result.lines), [(one.reason, one.detail) for one in result.rejections]


def test_a_rejection_carries_the_measure_and_how_far_it_is_off():
    good = (
        "The house stood on the hill, and nobody had lived there for years. Its windows were "
        "dark, its garden had gone wild, and children told each other stories about it.\n\n"
        "That evening a light came on behind the curtains. By morning everybody in the village "
        "had heard of it, but nobody wanted to go and have a look."
    )
    assert _kept("web", good, "too few words") == (1, [("words", "3, less than 50")])
    spam = good + "\n\n" + "buy now " * 200
    assert _kept("web", spam)[1][0][0] == "top_2gram_characters"
    assert _kept("none", good, "too few words", spam) == (3, [])


def test_code_survives_the_profiles_for_documentation_and_code():
    code = "\n".join(
        f"    def method_{n}(self):\n        return self.x[{n}] + {{}}" for n in range(40)
    )
    for profile in ("docs", "code"):
        assert _kept(profile, f"Example:\n\n{code}") == (1, [])


def test_lines_of_a_profile_go_and_are_accounted_for():
    text = "First line.\n\nWe use Cookies: see our Cookie Policy.\n\nLast line."
    rules = Rules(1, 10**6, None, "py3langid", 0.5, None, (), ("cookie policy",))
    result = refine(([Document("1", text, "s")], rules))
    assert json.loads(result.lines[0])["text"] == "First line.\n\nLast line."
    assert result.counts["removed_by_cleaning"] == len(text) - len("First line.\n\nLast line.")

import pytest
from transformers import AutoTokenizer

from utils.generation.incremental_text import IncrementalText


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir):
    return AutoTokenizer.from_pretrained(tokenizer_dir)


def pieces_of(tokenizer, ids, **options):
    pieces = IncrementalText(tokenizer, **options)
    return [*(pieces.add(token_id) for token_id in ids), pieces.finish()], pieces


@pytest.mark.parametrize(
    "text",
    [
        "plain words, and   spaces\n\n\tindented",
        " leading space",
        "na\u00efve \u20ac 5 \u65e5\u672c\u8a9e \U0001f600\U0001f680 end",
        "\U0001f600",
        "",
    ],
)
def test_pieces_join_to_the_decoded_text(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    given, pieces = pieces_of(tokenizer, ids)
    assert "".join(given) == pieces.text == text


def test_no_piece_ends_inside_a_character(tokenizer):
    ids = tokenizer.encode("a \u65e5\u672c\U0001f600 b", add_special_tokens=False)
    assert len(ids) > 10  # byte tokens
    given, _ = pieces_of(tokenizer, ids)
    assert not any("\ufffd" in piece for piece in given)


def test_broken_bytes_give_the_same_text_as_decoding_all_at_once(tokenizer):
    half = tokenizer.encode("\u65e5", add_special_tokens=False)[:-1]
    word = tokenizer.encode("word", add_special_tokens=False)
    ids = [*half, *word, *half]
    given, _ = pieces_of(tokenizer, ids)
    assert "".join(given) == tokenizer.decode(ids)


def test_control_tokens_give_no_text(tokenizer):
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    given, _ = pieces_of(tokenizer, [end, *tokenizer.encode("x", add_special_tokens=False), 2])
    assert "".join(given) == "x"


def test_text_ends_in_front_of_a_stop_text_that_spans_tokens(tokenizer):
    ids = tokenizer.encode("one two\nUser: three", add_special_tokens=False)
    given, pieces = pieces_of(tokenizer, ids, stop=("\nUser:",))
    assert "".join(given) == pieces.text == "one two"
    assert pieces.hit_stop


def test_half_a_stop_text_is_given_out_when_it_does_not_go_on(tokenizer):
    ids = tokenizer.encode("one\nUse it", add_special_tokens=False)
    given, pieces = pieces_of(tokenizer, ids, stop=("\nUser:",))
    assert "".join(given) == "one\nUse it"
    assert not pieces.hit_stop


def test_a_template_space_at_the_beginning_is_left_out_once(tokenizer):
    ids = tokenizer.encode("  two spaces", add_special_tokens=False)
    given, _ = pieces_of(tokenizer, ids, skip=" ")
    assert "".join(given) == " two spaces"

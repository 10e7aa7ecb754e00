import io
from dataclasses import replace

import pytest

from utils.config.serve import ServeConfig
from utils.generation.engine import answer, generate_batch
from utils.generation.prompts import text_prompt
from utils.generation.sampling import Sampling
from utils.serving.chat import Chat


@pytest.fixture
def talk(loaded, monkeypatch, capsys):
    """Run a conversation of lines; return (answers, notes, the chat)."""

    def run(*lines, **settings):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        chat = Chat(loaded, ServeConfig(**{"max_new_tokens": 16, **settings}))
        chat.run()
        captured = capsys.readouterr()
        return captured.out, captured.err, chat

    return run


def reply(loaded, messages, max_new_tokens=16):
    return answer(loaded, messages, Sampling(max_new_tokens=max_new_tokens)).text


def test_answers_alone_go_to_stdout_and_remember_the_conversation(talk, loaded):
    out, notes, chat = talk("hi", "  and then? ", "/exit", "never read")
    first = reply(loaded, [{"role": "user", "content": "hi"}])
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "and then?"},
    ]
    second = reply(loaded, messages)
    assert out == f"{first}\n{second}\n"
    assert chat.messages == [*messages, {"role": "assistant", "content": second}]
    assert "template chatml" in notes and "/help" in notes


def test_the_end_of_the_input_ends_the_chat(talk):
    out, _, _ = talk()
    assert out == ""


def test_reset_forgets_the_conversation(talk, loaded):
    out, _, _ = talk("hi", "/reset", "hi")
    first = reply(loaded, [{"role": "user", "content": "hi"}])
    assert out == f"{first}\n{first}\n"


def test_a_system_message_can_be_set_and_shown(talk, loaded):
    out, notes, chat = talk("/system", "/system be short", "/system", "hi")
    system = {"role": "system", "content": "be short"}
    assert chat.messages[0] == system
    assert out == reply(loaded, [system, {"role": "user", "content": "hi"}]) + "\n"
    assert "no system message" in notes and "\nbe short\n" in notes


def test_parameters_can_be_shown_and_set(talk, loaded):
    out, notes, chat = talk("/params", "/params max_new_tokens 3", "hi", "/params seed 4")
    assert out == reply(loaded, [{"role": "user", "content": "hi"}], 3) + "\n"
    assert "temperature 0.0, top_p 0.95, top_k 0, max_new_tokens 16, seed None" in notes
    assert chat.cfg.seed == 4
    assert "cut off after 3 tokens" in notes


def test_wrong_commands_and_values_get_one_line(talk):
    out, notes, chat = talk("/foo", "/params temperature 9", "/params colour red", "/params top_k")
    assert out == ""
    assert "unknown command /foo: /help lists them" in notes
    assert "temperature = '9': Input should be less than or equal to 5" in notes
    assert notes.count("usage: /params NAME VALUE") == 2
    assert chat.cfg.temperature == 0.0


def test_a_message_that_is_too_long_is_refused_and_forgotten(talk):
    out, notes, chat = talk("word " * 300)
    assert out == ""
    assert "exceed the context of 128" in notes
    assert chat.messages == []


def test_old_turns_are_left_out_aloud(talk):
    _, notes, chat = talk(*["what is this one about"] * 9, system_prompt="be short")
    assert "messages no longer fit into the context: left out" in notes
    assert chat.messages[0] == {"role": "system", "content": "be short"}
    assert len(chat.messages) < 19


def test_a_base_model_continues_each_line(loaded, monkeypatch, capsys):
    base = replace(loaded, card={**loaded.card, "template": None})
    monkeypatch.setattr("sys.stdin", io.StringIO("def main\ndef main\n"))
    Chat(base, ServeConfig(max_new_tokens=6)).run()
    text = generate_batch(base, [text_prompt(base, "def main")], Sampling(max_new_tokens=6))[0].text
    assert capsys.readouterr().out == f"{text}\n{text}\n"

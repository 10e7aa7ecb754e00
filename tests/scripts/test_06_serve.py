"""The real script: a chat fed by a pipe or by a terminal, and a server on a free port."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from utils.config.model import ModelConfig
from utils.files import atomic_folder
from utils.model.architecture import build_model
from utils.model.checkpoints import save_model_files
from utils.tokenizers.load import load_tokenizer

QUESTIONS = ("What does json.dumps do?", "And os.path?", "Say <b>hi</b>")


def write_checkpoint(folder, tokenizer_dir, n_layer):
    """A random chat model whose greedy answers vary and never end by themselves."""
    config = ModelConfig(
        n_layer=n_layer, d_model=64, n_head=2, d_ff=128, vocab_size=600, sequence_length=512,
        tie_embeddings=False,
    )  # fmt: skip
    model = build_model(config)
    torch.manual_seed(3)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.3 if "embed" in name else 0.15)
    with torch.no_grad():
        model.lm_head.weight[:12] = 0  # control tokens: never the likeliest of 600
        # Nor a carriage return, which `subprocess` would translate.
        model.lm_head.weight[load_tokenizer(tokenizer_dir).processor.piece_to_id("<0x0D>")] = 0
    card = {"stage": "dpo", "template": "chatml", "tokenizer_sha256": "0" * 64}
    with atomic_folder(folder) as partial:
        save_model_files(model, partial, tokenizer_dir=tokenizer_dir, card=card)
    return folder.parent


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory, tokenizer_dir):
    return write_checkpoint(tmp_path_factory.mktemp("dpo") / "final", tokenizer_dir, 2)


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory, tokenizer_dir):
    """Takes seconds for 400 tokens."""
    return write_checkpoint(tmp_path_factory.mktemp("slow") / "final", tokenizer_dir, 40)


def plain_transformers(folder, conversation, max_new_tokens=150):
    """The oracle: nothing of ours, only AutoModelForCausalLM and AutoTokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**prompt, max_new_tokens=max_new_tokens, do_sample=False)
    return tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)


def test_the_chat_in_a_pipe_gives_the_greedy_text_of_plain_transformers(run_script, chat_model):
    lines = "\n/reset\n".join(QUESTIONS) + "\n/exit\n"
    done = run_script("06_serve", "--model_path", chat_model, "--cpu", stdin=lines)
    expected = [
        plain_transformers(chat_model / "final", [{"role": "user", "content": question}])
        for question in QUESTIONS
    ]
    assert done.returncode == 0, done.stderr
    assert len(set(expected)) == 3
    assert done.stdout == "".join(f"{text}\n" for text in expected)
    assert "template chatml" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_a_missing_model_is_one_line_that_says_what_to_run(run_script):
    done = run_script("06_serve", stdin="")
    assert done.returncode == 1
    assert "no model at checkpoints/dpo: run `make session-quick` first" in done.stderr
    assert done.stderr.count("\n") == 1


def test_wrong_flags_and_hosts_are_refused_before_the_model_is_loaded(run_script, chat_model):
    flags = ("--model_path", chat_model, "--mode", "api", "--host", "0.0.0.0")
    done = run_script("06_serve", *flags)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "host = 0.0.0.0: only this machine is served" in done.stderr
    done = run_script("06_serve", "--temprature", 1)
    assert done.returncode == 2 and "did you mean '--temperature'" in done.stderr


def test_ctrl_c_stops_an_answer_and_at_the_prompt_the_chat(root, slow_model):
    master, terminal = pty.openpty()
    command = [sys.executable, str(root / "scripts" / "06_serve.py")]
    flags = ["--model_path", str(slow_model), "--max_new_tokens", "380", "--cpu"]
    process = subprocess.Popen(
        [*command, *flags], stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    )
    os.close(terminal)
    screen = read_until(master, "> ")
    assert "/help lists the commands" in screen
    os.write(master, b"/params seed 2\n")
    assert "seed 2" in read_until(master, "> ")
    os.write(master, b"hello\n")
    time.sleep(0.25)
    process.send_signal(signal.SIGINT)
    assert "(stopped)" in read_until(master, "\n> ")
    time.sleep(0.5)  # until the prompt waits for keys
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 0
    os.close(master)


def read_until(master, mark, timeout_s=60):
    """Return what the terminal shows, up to `mark` at its end."""
    screen, deadline = "", time.monotonic() + timeout_s
    while not screen.endswith(mark):
        assert time.monotonic() < deadline, screen
        screen += os.read(master, 4096).decode(errors="replace").replace("\r\n", "\n")
        screen = re.sub(r"\x1b\[\?2004[hl]", "", screen)  # readline: bracketed paste on and off
    return screen


@contextmanager
def server(root, model, *flags):
    """Run `--mode api --port 0`; yield (process, an HTTP client for it)."""
    command = [sys.executable, str(root / "scripts" / "06_serve.py"), "--mode", "api"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--cpu", "--model_path", str(model), *flags],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = iter(process.stderr.readline, "")
        url = next(found[0] for line in lines if (found := re.search(r"http://[\d.:]+", line)))
        with httpx.Client(base_url=url, timeout=60) as client:
            yield process, client
    finally:
        process.kill()
        process.communicate()


def wait_for_idle(client):
    """Return the seconds until no request is under way."""
    started = time.monotonic()
    while client.get("/health").json()["pending"]:
        assert time.monotonic() - started < 10
        time.sleep(0.02)
    return time.monotonic() - started


def test_a_server_answers_streams_refuses_cancels_and_stops(root, run_script, slow_model):
    with server(root, slow_model) as (process, client):
        assert client.get("/health").json()["status"] == "ok"
        check_answers(client, slow_model / "final")
        assert client.post("/generate", json={"prompt": 5}).status_code == 400
        assert client.get("/health", headers={"Host": "example.com"}).status_code == 403
        check_that_leaving_stops_the_writing(client)

        port = client.base_url.port
        flags = ("--model_path", slow_model, "--mode", "api", "--port", port)
        taken = run_script("06_serve", *flags)
        assert (taken.returncode, taken.stderr.count("\n")) == (1, 1)
        assert f"port {port} on 127.0.0.1 is in use" in taken.stderr

        chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 400}
        with client.stream("POST", "/v1/chat/completions", json={**chat, "stream": True}) as reply:
            lines = reply.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert process.wait(timeout=15) == 0
        assert "Traceback" not in process.stderr.read()


def check_answers(client, folder):
    question = [{"role": "user", "content": QUESTIONS[0]}]
    text = plain_transformers(folder, question, 20)
    body = {"prompt": QUESTIONS[0], "max_new_tokens": 20, "temperature": 0.0, "template": "chatml"}
    assert client.post("/generate", json=body).json()["response"] == text
    chat = {"messages": question, "max_tokens": 20}
    reply = client.post("/v1/chat/completions", json=chat).json()
    assert reply["choices"][0]["message"]["content"] == text
    with client.stream("POST", "/v1/chat/completions", json={**chat, "stream": True}) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines]
    assert "".join(delta.get("content", "") for delta in deltas) == text


def check_that_leaving_stops_the_writing(client):
    """An answer is over long before its end when its client has gone."""
    started = time.monotonic()
    client.post("/generate", json={"prompt": "hi", "max_new_tokens": 400})
    whole_s = time.monotonic() - started  # on this machine, now
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 400, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=chat) as response:
        next(response.iter_lines())
        assert client.get("/health").json()["pending"] == 1  # answers while it writes
    assert wait_for_idle(client) < 0.5 * whole_s
    with pytest.raises(httpx.ReadTimeout):
        client.post("/generate", json={"prompt": "hi", "max_new_tokens": 400}, timeout=0.3)
    assert wait_for_idle(client) < 0.5 * whole_s

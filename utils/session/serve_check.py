"""Starts stage 06 as an API, asks one question over HTTP, stops it (part of test-pipeline)."""

import contextlib
import logging
import socket
import subprocess
import sys
import time

import httpx

from utils.checkout import SCRIPTS
from utils.config.serve import ServeConfig
from utils.errors import LumiError
from utils.stage import run_stage

START_S = 120.0
QUESTION = {"prompt": "What does json.dumps do?", "max_new_tokens": 24, "temperature": 0.0}

log = logging.getLogger(__name__)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def ask(url: str, server: subprocess.Popen[bytes]) -> str:
    """Return what the server answers to one question.

    Raises:
        LumiError: it ended, did not start in time, or answered with an error.
    """
    until = time.monotonic() + START_S
    with httpx.Client(base_url=url, timeout=60.0, trust_env=False) as client:
        while time.monotonic() < until and server.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if client.get("/health").status_code == 200:
                    break
            time.sleep(0.2)
        else:
            raise LumiError("the API did not start: see the lines above, or run make serve-api")
        reply = client.post("/generate", json=QUESTION)
        if reply.status_code != 200:
            raise LumiError(f"POST /generate answered {reply.status_code}: {reply.text[:200]}")
        return reply.text


def main(cfg: ServeConfig) -> None:
    """Ask the model of `--model_path` one question over HTTP."""
    port = cfg.port or free_port()
    command = [sys.executable, str(SCRIPTS / "06_serve.py"), "--mode", "api"]
    command += ["--model_path", str(cfg.model_path), "--port", str(port)]
    server = subprocess.Popen(command)
    try:
        log.info("POST /generate -> %s", ask(f"http://127.0.0.1:{port}", server)[:300])
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


if __name__ == "__main__":
    sys.exit(run_stage(main, ServeConfig))

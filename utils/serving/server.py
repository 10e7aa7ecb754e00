"""Runs the API on a socket that is already listening, until SIGINT or SIGTERM."""

import asyncio
import json
import logging
import signal
import socket

import uvicorn

from utils.config.serve import ServeConfig
from utils.model.checkpoints import LoadedModel
from utils.serving.api import create_app
from utils.serving.checks import url_of
from utils.serving.model import describe
from utils.serving.worker import Worker

SHUTDOWN_S = 2
"""Answers under way may go on this long after a signal; then they end as they are."""

log = logging.getLogger(__name__)


def run_server(loaded: LoadedModel, cfg: ServeConfig, server: socket.socket) -> None:
    """Serve until a signal; then finish what is quick, stop the rest, and return."""
    url = url_of(server)
    log.info("%s", describe(loaded))
    log.info("serving on %s (Ctrl-C stops); try:", url)
    log.info("%s", curl_example(url, cfg))
    logging.getLogger("uvicorn.error").setLevel("WARNING")
    app = create_app(loaded, cfg)
    # The timeout is a last resort: a client that does not read keeps its connection open.
    uvicorn_config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5 * SHUTDOWN_S)
    # uvicorn raises the signal again when it is done: a stop that was asked for is no failure.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    _Server(uvicorn_config, app.state.worker).run(sockets=[server])
    log.info("stopped")


class _Server(uvicorn.Server):
    """uvicorn that ends the answers under way, so that their clients get what there is."""

    def __init__(self, config: uvicorn.Config, worker: Worker) -> None:
        super().__init__(config)
        self._worker = worker

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the connections, the busy ones within `SHUTDOWN_S`."""
        asyncio.get_running_loop().call_later(SHUTDOWN_S, self._worker.stop)
        await super().shutdown(sockets)


def curl_example(url: str, cfg: ServeConfig) -> str:
    """Return a command that can be pasted into a shell."""
    body = json.dumps({"prompt": "Hello", "max_new_tokens": min(cfg.max_new_tokens, 100)})
    return f"curl -X POST {url}/generate -H 'Content-Type: application/json' -d '{body}'"

"""What can be refused before a model is loaded: its absence, the address, a taken port.

Imports no torch, so that a mistake is answered at once.
"""

import errno
import ipaddress
import socket
from pathlib import Path

from utils.checkout import run_folders
from utils.errors import CheckpointError, ConfigError, LumiError


def check_model_exists(path: Path) -> None:
    """Check that `path` holds a model or a run with one.

    Raises:
        CheckpointError: it does not; the message says what to run, or which other model is there.
    """
    if _holds_model(path):
        return
    found = [run / "final" for run in run_folders()]
    others = [str(folder) for folder in found if folder != path and _holds_model(folder)]
    remedy = (
        f"take {others[0]} (make serve MODEL_PATH={others[0]})"
        if others
        else "run `make session-quick` first (corpus, training and all, in 30 minutes), "
        "or pass --model_path"
    )
    raise CheckpointError(f"no model at {path}: {remedy}")


def _holds_model(path: Path) -> bool:
    return (path / "config.json").is_file() or any(path.glob("*/config.json"))


def is_loopback(host: str) -> bool:
    """Return whether a host name or address means this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket (port 0: any free one).

    Raises:
        ConfigError: `host` is not a loopback address.
        LumiError: the port is taken or not permitted.
    """
    if not is_loopback(host):
        raise ConfigError(
            f"host = {host}: only this machine is served (127.0.0.1, localhost or ::1): "
            "reach it from elsewhere through an SSH tunnel"
        )
    address = "127.0.0.1" if host.lower() == "localhost" else host.strip("[]")
    server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((address, port))
        server.listen(128)
    except OSError as error:
        server.close()
        if error.errno == errno.EADDRINUSE:
            raise LumiError(
                f"port {port} on {host} is in use: stop the other program, or pass --port "
                f"{port + 1 if port < 65535 else 0}"
            ) from error
        raise LumiError(
            f"cannot listen on {host}:{port} ({error.strerror}): choose another --port or --host"
        ) from error
    return server


def url_of(server: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = server.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

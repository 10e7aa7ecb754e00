"""Keeps other machines, and web pages that run in a browser on this one, out.

A page can reach a loopback server by DNS rebinding (its own name then stands in Host) or by a
cross-site request (its name stands in Origin): both headers must name this machine. Bodies are
bounded while they are being read.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from utils.serving.checks import is_loopback
from utils.serving.errors import error_response
from utils.serving.schemas import MAX_BODY_BYTES

TOO_LARGE = f"the request is larger than {MAX_BODY_BYTES:,} bytes: shorten it"


class LoopbackOnly:
    """ASGI middleware that answers 403 or 413 before the application sees a request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif refusal := _refusal(Headers(scope=scope)):
            await error_response(*refusal)(scope, receive, send)
        else:
            await self.app(scope, _bounded(receive), send)


def _refusal(headers: Headers) -> tuple[int, str] | None:
    """Return status and reason of a refusal, or None."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if not _names_loopback(f"//{host}"):
        return 403, f"host {host!r} is refused: use http://127.0.0.1 or http://localhost"
    if origin is not None and not _names_loopback(origin):
        return 403, f"origin {origin!r} is refused: only pages of this machine may ask"
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        return 413, TOO_LARGE
    return None


def _names_loopback(url: str) -> bool:
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def _bounded(receive: Receive) -> Receive:
    """Return `receive` that refuses to read more than the limit (a body without a length)."""
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise HTTPException(413, TOO_LARGE)
        return message

    return bounded

"""Answers in the shape of OpenAI's chat completions, whole or as server-sent events.

Reference: https://platform.openai.com/docs/api-reference/chat
"""

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from utils.generation.engine import Generated
from utils.serving.worker import Job


class Completion:
    """One reply in OpenAI's shape."""

    def __init__(self, model: str) -> None:
        self.completion_id = f"chatcmpl-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.model = model

    def whole(self, result: Generated, prompt_tokens: int) -> dict[str, Any]:
        """Return a whole answer."""
        message = {"role": "assistant", "content": result.text}
        choice = {"message": message, "logprobs": None, "finish_reason": _finish_reason(result)}
        return {
            **self._frame("chat.completion", [{"index": 0, **choice}]),
            "usage": _usage(result, prompt_tokens),
        }

    async def events(self, job: Job, wants_usage: bool) -> AsyncIterator[str]:
        """Yield the server-sent events of an answer; leaving early stops the writing."""
        try:
            yield self._chunk({"role": "assistant", "content": ""})
            async for piece in job.pieces():
                yield self._chunk({"content": piece})
            result = await job.result()
            yield self._chunk({}, _finish_reason(result))
            if wants_usage:
                frame = self._frame("chat.completion.chunk", [])
                yield _event({**frame, "usage": _usage(result, job.prompt_tokens)})
            yield "data: [DONE]\n\n"
        finally:
            job.cancel()

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event(self._frame("chat.completion.chunk", [choice]))

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.completion_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


def _finish_reason(result: Generated) -> str:
    return "stop" if result.stopped else "length"


def _usage(result: Generated, prompt_tokens: int) -> dict[str, int]:
    written = len(result.ids)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": written,
        "total_tokens": prompt_tokens + written,
    }

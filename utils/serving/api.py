"""The HTTP API: /health, /generate, and the part of OpenAI's API that chat programs use.

Reference: https://platform.openai.com/docs/api-reference/chat
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.responses import Response

from utils.config.serve import ServeConfig
from utils.errors import DataError
from utils.generation.engine import Generated, Stream, answer_stream
from utils.generation.prompts import text_prompt
from utils.model.checkpoints import LoadedModel
from utils.serving.completions import Completion
from utils.serving.errors import add_error_handlers
from utils.serving.loopback_only import LoopbackOnly
from utils.serving.model import can_chat, name_of
from utils.serving.schemas import ChatRequest, GenerateRequest, GenerateResponse
from utils.serving.worker import Job, Worker

DISCONNECT_POLL_S = 0.2
"""How often it is asked whether the client of a whole answer is still there."""
T = TypeVar("T")


def create_app(loaded: LoadedModel, cfg: ServeConfig) -> FastAPI:
    """Return the application that serves `loaded` with the defaults of `cfg`."""
    service = Service(loaded, cfg)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.worker.close()

    app = FastAPI(title="Lumi", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.worker = service.worker
    app.add_middleware(LoopbackOnly)
    add_error_handlers(app)
    app.get("/health")(service.health)
    app.get("/v1/models")(service.models)
    app.post("/generate")(service.generate)
    app.post("/v1/chat/completions", response_model=None)(service.chat)
    return app


class Service:
    """The routes, and what they share."""

    def __init__(self, loaded: LoadedModel, cfg: ServeConfig) -> None:
        self.loaded = loaded
        self.cfg = cfg
        self.name = name_of(loaded)
        self.worker = Worker(cfg.request_timeout_s)
        self.started = int(time.time())

    async def health(self) -> dict[str, Any]:
        """Say that the server is up, which model it has, and how many requests it works on."""
        return {
            "status": "ok",
            "model": self.name,
            "template": self.loaded.template.name if can_chat(self.loaded) else "none",
            "context_length": self.loaded.context_length,
            "pending": self.worker.pending,
        }

    async def models(self) -> dict[str, Any]:
        """List the one model, in OpenAI's shape."""
        model = {"id": self.name, "object": "model", "created": self.started, "owned_by": "lumi"}
        return {"object": "list", "data": [model]}

    async def generate(self, body: GenerateRequest, request: Request) -> GenerateResponse:
        """Answer a prompt, or continue a text (template "none")."""
        settings = body.sampling(self.cfg, body.max_new_tokens)
        loaded = self._with(body.template)
        uses_template = body.template != "none" and can_chat(loaded)

        def make_stream(should_stop: Callable[[], bool]) -> Stream:
            if not uses_template:
                return Stream(loaded, text_prompt(loaded, body.prompt), settings, should_stop)
            return answer_stream(loaded, self._conversation(body.prompt), settings, should_stop)

        job = self.worker.submit(make_stream)
        result = await _whole(job, request)
        return GenerateResponse(
            response=result.text,
            tokens=len(result.ids),
            prompt_tokens=job.prompt_tokens,
            stopped=result.stopped,
            template=loaded.template.name if uses_template else "none",
            model=self.name,
        )

    async def chat(self, body: ChatRequest, request: Request) -> Response | dict[str, Any]:
        """Answer a conversation in OpenAI's shape, whole or as server-sent events."""
        if not can_chat(self.loaded):
            raise DataError(
                'this is a base model without a chat template: POST /generate {"prompt": TEXT}, '
                "or restart with --template chatml"
            )
        settings = body.sampling(self.cfg, body.longest)
        messages = [message.as_message() for message in body.messages]
        job = self.worker.submit(
            lambda should_stop: answer_stream(self.loaded, messages, settings, should_stop)
        )
        reply = Completion(self.name)
        if not body.stream:
            result = await _whole(job, request)
            return reply.whole(result, job.prompt_tokens)
        await _unless_gone(job.begin(), job, request)
        wants_usage = bool(body.stream_options and body.stream_options.include_usage)
        return StreamingResponse(
            reply.events(job, wants_usage),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache"},
        )

    def _with(self, template: str | None) -> LoadedModel:
        if template in (None, "none", self.loaded.card.get("template")):
            return self.loaded
        return replace(self.loaded, card={**self.loaded.card, "template": template})

    def _conversation(self, prompt: str) -> list[dict[str, str]]:
        system = self.cfg.system_prompt
        head = [{"role": "system", "content": system}] if system else []
        return [*head, {"role": "user", "content": prompt}]


async def _whole(job: Job, request: Request) -> Generated:
    """Return the whole answer; see `_unless_gone`."""
    await _unless_gone(job.begin(), job, request)
    return await _unless_gone(job.result(), job, request)


async def _unless_gone(work: Awaitable[T], job: Job, request: Request) -> T:
    """Wait for `work`; when the client goes away, or the wait is given up, stop the job."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=DISCONNECT_POLL_S))[0]:
            if await request.is_disconnected():
                job.cancel()
        return await task
    except BaseException:
        job.cancel()
        task.cancel()
        raise

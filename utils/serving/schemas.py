"""The requests of the HTTP API, bounded and documented.

Unknown keys of /generate are refused; of the OpenAI route only those that would change the answer.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from utils.chat.templates import Message
from utils.config.serve import ServeConfig
from utils.generation.sampling import Sampling

MAX_BODY_BYTES = 1_000_000
MAX_MESSAGES = 256
StopText = Annotated[str, Field(min_length=1, max_length=100)]


class SamplingRequest(BaseModel):
    """How to draw; what is not given comes from the server's settings."""

    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())

    temperature: float | None = Field(None, ge=0, le=5)
    """0 picks the likeliest token."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Sample among the likeliest tokens that hold this much probability."""
    top_k: int | None = Field(None, ge=0)
    """Sample among this many likeliest tokens (0: no limit)."""
    seed: int | None = Field(None, ge=0, lt=2**63)
    """Makes a sampled answer repeatable."""
    stop: StopText | Annotated[list[StopText], Field(max_length=8)] | None = None
    """Texts that end the answer and are not part of it."""

    def sampling(self, cfg: ServeConfig, max_new_tokens: int | None) -> Sampling:
        """Return the complete sampling settings of this request."""
        given = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "max_new_tokens": max_new_tokens,
            "seed": self.seed,
        }
        values = {key: getattr(cfg, key) if new is None else new for key, new in given.items()}
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(**values, stop=tuple(stop))


class GenerateRequest(SamplingRequest):
    """POST /generate."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(max_length=MAX_BODY_BYTES)
    """A user's message, or with template "none" a text to be continued."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Longest answer in tokens; prompt and answer must fit into the context."""
    template: Literal["chatml", "instruct", "chat", "none"] | None = None
    """Layout of the prompt; the model's own when absent ("none" for a base model)."""


class GenerateResponse(BaseModel):
    """Answer of /generate."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    response: str
    """The answer, or the continuation of the prompt."""
    tokens: int
    """Tokens written."""
    prompt_tokens: int
    """Tokens read, those of the template included."""
    stopped: bool
    """Whether the answer ended by itself and was not cut off."""
    template: str
    """Layout that was used."""
    model: str
    """Name of the model."""


class TextPart(BaseModel):
    """A part of a message; only text is understood."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def as_message(self) -> Message:
        """Return the message as the templates want it."""
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": text}


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    include_usage: bool = False


class ChatRequest(SamplingRequest):
    """POST /v1/chat/completions, the part of OpenAI's shape that a small model can serve."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    """The conversation; the oldest turns are left out when they do not fit."""
    model: str = ""
    """Ignored: there is one model."""
    max_tokens: int | None = Field(None, ge=1)
    """Longest answer in tokens."""
    max_completion_tokens: int | None = Field(None, ge=1)
    """Newer name of max_tokens."""
    stream: bool = False
    """Send the answer piece by piece as server-sent events."""
    stream_options: StreamOptions | None = None
    """{"include_usage": true} adds a last chunk with the token counts."""
    n: Literal[1] | None = None
    """Only one answer at a time."""
    frequency_penalty: Literal[0] | None = None
    """Not supported, except 0."""
    presence_penalty: Literal[0] | None = None
    """Not supported, except 0."""
    logprobs: Literal[False] | None = None
    """Not supported."""
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    """Not supported."""
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    """Not supported."""
    response_format: dict[str, Any] | None = None
    """Only {"type": "text"}."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.response_format and self.response_format.get("type") != "text":
            raise ValueError("response_format: only text is supported")
        return self

    @property
    def longest(self) -> int | None:
        """Longest answer in tokens, under whichever name it was given."""
        return self.max_completion_tokens or self.max_tokens

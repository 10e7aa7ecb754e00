"""Errors over HTTP: OpenAI's JSON shape with a one-line message."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from utils.errors import LumiError
from utils.serving.worker import BusyError

ROUTES = "use GET /health, POST /generate, GET /v1/models or POST /v1/chat/completions"


def error_response(status: int, message: str) -> JSONResponse:
    """Return {"error": {"message", "type", "param", "code"}}."""
    kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": None}
    headers = {"Retry-After": "5"} if status in (429, 503) else None
    return JSONResponse({"error": error}, status_code=status, headers=headers)


def add_error_handlers(app: FastAPI) -> None:
    """Let every failure of a request end in `error_response`."""

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return error_response(400, _one_line(error))

    async def lumi(_: Request, error: Exception) -> JSONResponse:
        return error_response(error.status if isinstance(error, BusyError) else 400, str(error))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        place = f"{request.method} {request.url.path}"
        known = {404: f"{place} does not exist: {ROUTES}", 405: f"{place} is not allowed: {ROUTES}"}
        return error_response(error.status_code, known.get(error.status_code, str(error.detail)))

    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        return error_response(500, f"the server failed ({type(error).__name__}): see its log")

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(LumiError, lumi)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


def _one_line(error: RequestValidationError) -> str:
    """Return `max_new_tokens = 0: Input should be ...; ...` (long values are shortened)."""
    problems = []
    for problem in error.errors()[:4]:
        if problem["type"] == "json_invalid":
            reason = problem.get("ctx", {}).get("error", "")
            return f"the body is not valid JSON ({reason}): correct it"
        if isinstance(problem["input"], bytes):
            return "the body was not read as JSON: send the header Content-Type: application/json"
        where = ".".join(str(part) for part in problem["loc"][1:]) or "body"
        problems.append(f"{where}{_value(problem)}: {problem['msg']}")
    return "; ".join(problems)


def _value(problem: dict[str, Any]) -> str:
    if problem["type"] == "missing" or isinstance(problem["input"], dict | list):
        return ""
    text = repr(problem["input"])
    return f" = {text if len(text) <= 60 else text[:57] + '...'}"

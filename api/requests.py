"""Read what a client asks for: the body, its size, the Chat Completions parameters in it."""

import json
import math
from collections.abc import Container
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request

from shared.errors import BodyNotJson, BodyTooLarge, ParameterRefused, RequestInvalid

OWNED: Final = {
    "stream": "Rejoin streams to the log; follow the events to read it as it comes.",
    "stream_options": "Usage is always asked for and stored.",
    "audio": "Audio is not carried.",
    "logprobs": "Log probabilities are not carried.",
    "top_logprobs": "Log probabilities are not carried.",
}
"""Parameters that Rejoin decides itself or cannot carry, and why."""

_MAX_KEY: Final = 255
_MAX_DEPTH: Final = 200


class Message(BaseModel):
    """One message. Its shape is checked; what it says goes to the model server untouched."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None


class ChatRequest(BaseModel):
    """A Chat Completions request. Known parameters must have their type; others pass as they are.

    Source: OpenAI, "Create chat completion".
    """

    model_config = ConfigDict(extra="allow", strict=True)

    messages: Annotated[list[Message], Field(min_length=1)]
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    n: Literal[1] | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    logit_bias: dict[str, float] | None = None
    metadata: dict[str, str] | None = None
    modalities: list[Literal["text"]] | None = None
    store: bool | None = None
    user: str | None = None
    service_tier: str | None = None


async def read_body(request: Request, limit: int) -> dict[str, Any]:
    """Return the body as a JSON object. Raises: BodyTooLarge, BodyNotJson."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise BodyTooLarge(limit)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise BodyTooLarge(limit)
    try:
        decoded = json.loads(
            body.decode(), parse_constant=_refuse_constant, parse_float=_parse_finite
        )
        _check_depth(decoded)
    except (ValueError, RecursionError) as error:
        raise BodyNotJson(f"{type(error).__name__}: {error}"[:200]) from None
    if not isinstance(decoded, dict):
        raise BodyNotJson("The top level is not an object.")
    return decoded


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _parse_finite(text: str) -> float:
    """JSON can spell a number, `1e999`, that no float holds: infinity could not be sent on."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def _check_depth(value: Any) -> None:
    """Each encoder on the way down to the model has its own limit, all near a thousand levels."""
    depth, level = 0, [value]
    while level := [
        inner
        for each in level
        if isinstance(each, dict | list)
        for inner in (each.values() if isinstance(each, dict) else each)
    ]:
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested more than {_MAX_DEPTH} levels deep")


def parse_request(body: dict[str, Any]) -> dict[str, Any]:
    """Return the Chat Completions parameters that `body` asks for, checked and else untouched.

    `{"prompt": "…"}` is short for one user message. Raises: RequestInvalid, ParameterRefused.
    """
    parameters = dict(body)
    if "prompt" in parameters:
        if "messages" in parameters:
            raise RequestInvalid("/prompt", "Give either messages or prompt.")
        prompt = parameters.pop("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise RequestInvalid("/prompt", "Must be a text that is not empty.")
        parameters["messages"] = [{"role": "user", "content": prompt}]
    elif "messages" not in parameters:
        raise RequestInvalid("", "Neither messages nor prompt is there.")
    for name, reason in OWNED.items():
        if name in parameters:
            raise ParameterRefused(name, reason)
    try:
        ChatRequest.model_validate(parameters)
    except ValidationError as error:
        found = [
            (_locate(parameters, each), each["msg"])
            for each in error.errors(include_url=False, include_input=False)
        ]
        # Of the branches of a union the one that came furthest says what is wrong.
        location, reason = max(found, key=lambda each: len(each[0]))
        pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in location)
        raise RequestInvalid(pointer, reason) from None
    _refuse_lone_surrogates(parameters)
    return parameters


def _steps(value: Any) -> Container[str | int]:
    """Return what leads further into `value`."""
    if isinstance(value, dict):
        return value
    return range(len(value)) if isinstance(value, list) else ()


def _locate(parameters: dict[str, Any], error: ErrorDetails) -> list[str]:
    """Return the path to the wrong value; pydantic's own also names the branches of unions."""
    path: list[str] = []
    value: Any = parameters
    for part in error["loc"]:
        if part in _steps(value):
            value = value[part]
        elif error["type"] != "missing" or part != error["loc"][-1]:
            continue
        path.append(str(part))
    return path


def _refuse_lone_surrogates(parameters: dict[str, Any]) -> None:
    """JSON can spell half a character; UTF-8, which the model server is sent, cannot."""
    try:
        json.dumps(parameters, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RequestInvalid("", "A text has half of a surrogate pair.") from None


def parse_idempotency_key(key: str | None) -> str | None:
    """Return the key, None where there is none. Raises: RequestInvalid."""
    if key is None:
        return None
    if not key or len(key) > _MAX_KEY or not key.isprintable():
        raise RequestInvalid("", f"An idempotency key has 1 to {_MAX_KEY} printable characters.")
    return key

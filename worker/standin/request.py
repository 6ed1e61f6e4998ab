"""One Chat Completions request, as far as the stand-in cares."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.standin.error import RequestInvalid
from worker.standin.script import Message, digest, split_prefix


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """`parameters` is everything that was sent but the messages.

    An assistant message at the end is the beginning of the answer, and no part of the question.
    """

    model: str
    messages: tuple[Message, ...]
    prefix: str | None
    tools: tuple[str, ...]
    parameters: dict[str, Any]

    @property
    def key(self) -> str:
        """The same for two requests that ask the same model the same thing."""
        return request_key(self.model, self.messages)

    @property
    def stream(self) -> bool:
        """Whether the answer is wanted as server-sent events."""
        return bool(self.parameters.get("stream"))

    @property
    def include_usage(self) -> bool:
        """Whether the events shall end with the usage."""
        return bool((self.parameters.get("stream_options") or {}).get("include_usage"))

    @property
    def limit(self) -> int | None:
        """The most tokens the answer may have."""
        given = (self.parameters.get(n) for n in ("max_completion_tokens", "max_tokens"))
        return min((limit for limit in given if limit is not None), default=None)

    @classmethod
    def parse(cls, body: bytes) -> "ChatRequest":
        """Raises: RequestInvalid."""
        parameters = parse_object(body)
        messages = parameters.pop("messages", None)
        require(_is_messages(messages), "messages", "must be a list of messages, not empty")
        model = model_of(parameters)
        for name in ("max_completion_tokens", "max_tokens"):
            limit = parameters.get(name)
            require(limit is None or (type(limit) is int and limit > 0), name, "must be positive")
        require(isinstance(parameters.get("stream"), bool | None), "stream", "must be a boolean")
        options = parameters.get("stream_options")
        require(isinstance(options, dict | None), "stream_options", "must be an object")
        require(options is None or bool(parameters.get("stream")), "stream_options", "needs stream")
        require(parameters.get("n") in (None, 1), "n", "must be 1")
        question, prefix = split_prefix(messages)
        return cls(model, question, prefix, _tool_names(parameters.get("tools")), parameters)


def parse_object(body: bytes) -> dict[str, Any]:
    """Raises: RequestInvalid."""
    try:
        value = json.loads(body)
    except ValueError as error:
        raise RequestInvalid("the body is not JSON") from error
    if not isinstance(value, dict):
        raise RequestInvalid("the body is not a JSON object")
    return value


def model_of(parameters: Mapping[str, Any]) -> str:
    """Raises: RequestInvalid."""
    model = parameters.get("model")
    if not isinstance(model, str) or not model:
        raise RequestInvalid("model must be a string, not empty", "model")
    return model


def request_key(model: str, messages: Any) -> str:
    """The key under which the ledger keeps requests for this content.

    The same with and without the beginning of the answer.
    """
    return digest([model, list(split_prefix(list(messages))[0])])


def require(holds: bool, param: str, rule: str) -> None:
    """Raises: RequestInvalid unless the rule for the parameter holds."""
    if not holds:
        raise RequestInvalid(f"{param} {rule}", param)


def _is_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in value)
    )


def _tool_names(tools: Any) -> tuple[str, ...]:
    try:
        return tuple(str(tool["function"]["name"]) for tool in tools or ())
    except (KeyError, TypeError) as error:
        raise RequestInvalid("tools must be a list of functions", "tools") from error

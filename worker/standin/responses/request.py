"""One request of the Responses API, as the question it would be in Chat Completions."""

from dataclasses import dataclass
from typing import Any

from worker.standin.error import RequestInvalid
from worker.standin.request import model_of, parse_object, request_key, require
from worker.standin.script import Message, split_prefix

_UNKNOWN_HERE = ("previous_response_id", "conversation", "prompt")
_SWITCHES = ("stream", "background", "store")


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """`parameters` is everything that was sent but `input` and `instructions`."""

    model: str
    instructions: str | None
    messages: tuple[Message, ...]
    prefix: str | None
    tools: tuple[str, ...]
    parameters: dict[str, Any]

    @property
    def key(self) -> str:
        """That of the same question in Chat Completions."""
        return request_key(self.model, self.messages)

    @property
    def stream(self) -> bool:
        """Whether the answer is wanted as server-sent events."""
        return bool(self.parameters.get("stream"))

    @property
    def background(self) -> bool:
        """Whether it goes on without a connection."""
        return bool(self.parameters.get("background"))

    @property
    def store(self) -> bool:
        """Whether it can be retrieved."""
        return self.parameters.get("store") is not False

    @property
    def limit(self) -> int | None:
        """The most tokens the answer may have."""
        return self.parameters.get("max_output_tokens")

    @classmethod
    def parse(cls, body: bytes) -> "ResponsesRequest":
        """Raises: RequestInvalid."""
        parameters = parse_object(body)
        model = model_of(parameters)
        asked = parameters.pop("input", None)
        instructions = parameters.pop("instructions", None)
        require(isinstance(instructions, str | None), "instructions", "must be a string")
        limit = parameters.get("max_output_tokens")
        valid = limit is None or (type(limit) is int and limit > 0)
        require(valid, "max_output_tokens", "must be positive")
        for name in _SWITCHES:
            require(isinstance(parameters.get(name), bool | None), name, "must be a boolean")
        stored = parameters.get("store") is not False or not parameters.get("background")
        require(stored, "store", "must be true in the background")
        for name in _UNKNOWN_HERE:
            require(parameters.get(name) is None, name, "is not known to the stand-in")
        metadata = parameters.get("metadata")
        require(isinstance(metadata, dict | None), "metadata", "must be an object")
        messages = [] if instructions is None else [{"role": "system", "content": instructions}]
        question, prefix = split_prefix(messages + _messages(asked))
        tools = _tool_names(parameters.get("tools"))
        return cls(model, instructions, question, prefix, tools, parameters)


def _messages(asked: Any) -> list[dict[str, Any]]:
    if isinstance(asked, str):
        return [{"role": "user", "content": asked}]
    require(isinstance(asked, list) and bool(asked), "input", "must be a string or a list of items")
    messages: list[dict[str, Any]] = []
    for item in asked:
        require(isinstance(item, dict), "input", "must be a list of items")
        _add(messages, item)
    return messages


def _add(messages: list[dict[str, Any]], item: dict[str, Any]) -> None:
    match item.get("type", "message"):
        case "message":
            require(isinstance(item.get("role"), str), "input", "needs a role in every message")
            extra = {k: v for k, v in item.items() if k not in ("type", "id", "status", "phase")}
            messages.append({**extra, "content": _content(item.get("content"))})
        case "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            messages[-1].setdefault("tool_calls", []).append(call)
        case "function_call_output":
            output = _content(item.get("output"))
            called = item.get("call_id")
            messages.append({"role": "tool", "tool_call_id": called, "content": output})
        case "reasoning":
            pass
        case kind:
            raise RequestInvalid(f"input items of type {kind} are not known", "input")


def _content(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    return [_part(part) if isinstance(part, dict) else part for part in content]


def _part(part: dict[str, Any]) -> dict[str, Any]:
    match part.get("type"):
        case "input_text" | "output_text":
            return {"type": "text", "text": part.get("text")}
        case "input_image":
            image = {"url": part.get("image_url")}
            if "detail" in part:
                image["detail"] = part["detail"]
            return {"type": "image_url", "image_url": image}
        case _:
            return part


def _tool_names(tools: Any) -> tuple[str, ...]:
    try:
        functions = [tool for tool in tools or () if tool["type"] == "function"]
        return tuple(str(function["name"]) for function in functions)
    except (KeyError, TypeError) as error:
        raise RequestInvalid("tools must be a list of tools", "tools") from error

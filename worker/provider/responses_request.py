"""A Chat Completions request as the request of the Responses API that asks for the same.

| Chat Completions | Responses |
|---|---|
| `messages` | `input`: texts, images and files of messages, tool calls, tool results |
| `max_completion_tokens`, `max_tokens` | `max_output_tokens` |
| `reasoning_effort` | `reasoning.effort` |
| `response_format`, `verbosity` | `text.format`, `text.verbosity` |
| `tools` of type `function`, `tool_choice` | the same, flat; `strict` false unless asked for |
| `metadata`, `model`, `parallel_tool_calls`, `prompt_cache_key`, `safety_identifier`, \
`service_tier`, `temperature`, `top_p`, `user` | the same |
| `store` | must not be false: what goes on in the background is stored |

A request with anything else (`stop`, `seed`, penalties, `logit_bias`, custom tools, …) cannot be
said there and does without a run.

Source: OpenAI's API reference and its guide to migrating from Chat Completions.
"""

from typing import Any, Final

_SAME: Final = frozenset(
    {
        "metadata",
        "model",
        "parallel_tool_calls",
        "prompt_cache_key",
        "safety_identifier",
        "service_tier",
        "temperature",
        "top_p",
        "user",
    }
)

_OWNED: Final = {"stream", "stream_options", "n"}
"""Said by ourselves, or with only one value."""

_SAID: Final[dict[str, Any]] = {
    "background": True,
    "store": True,
    "stream": True,
    "stream_options": {"include_obfuscation": False},
}
"""What every such request says."""

_ROLES: Final = ("system", "developer", "user", "assistant")


class _Unmappable(Exception):
    """The other API has no words for it."""


def build_run_body(request: dict[str, Any], model: str) -> dict[str, Any] | None:
    """Return the body that asks for `request` in the background; None if that cannot be said."""
    body: dict[str, Any] = {}
    try:
        for name, value in request.items():
            if value is not None and name not in _OWNED:
                _map(name, value, body)
    except (_Unmappable, KeyError, TypeError, AttributeError):
        # What is malformed is for the provider to refuse, in the API it was written for.
        return None
    return {**body, "model": model, **_SAID}


def _map(name: str, value: Any, body: dict[str, Any]) -> None:
    match name:
        case "messages":
            body["input"] = [item for message in value for item in _items(message)]
        case "max_completion_tokens" | "max_tokens":
            if "max_output_tokens" in body:
                raise _Unmappable(name)
            body["max_output_tokens"] = value
        case "reasoning_effort":
            body["reasoning"] = {"effort": value}
        case "verbosity":
            body.setdefault("text", {})["verbosity"] = value
        case "response_format":
            body.setdefault("text", {})["format"] = _format(value)
        case "tools":
            body["tools"] = [_tool(tool) for tool in value]
        case "tool_choice":
            body["tool_choice"] = _tool_choice(value)
        case "store" if value is True:
            pass
        case _ if name in _SAME:
            body[name] = value
        case _:
            raise _Unmappable(name)


def _items(message: dict[str, Any]) -> list[dict[str, Any]]:
    known = {"role", "content", "tool_calls", "tool_call_id"}
    if any(value is not None for name, value in message.items() if name not in known):
        raise _Unmappable("message")
    role, content = message["role"], message.get("content")
    if role == "tool":
        output = content if isinstance(content, str) else _parts(content or [], role)
        call_id = message["tool_call_id"]
        return [{"type": "function_call_output", "call_id": call_id, "output": output}]
    if role not in _ROLES:
        raise _Unmappable(role)
    items: list[dict[str, Any]] = []
    if content is not None:
        said = content if isinstance(content, str) else _parts(content, role)
        items.append({"role": role, "content": said})
    for call in message.get("tool_calls") or ():
        if call["type"] != "function":
            raise _Unmappable("tool_calls")
        function = {name: call["function"][name] for name in ("name", "arguments")}
        items.append({"type": "function_call", "call_id": call["id"], **function})
    if not items:
        raise _Unmappable("content")
    return items


def _parts(parts: list[dict[str, Any]], role: str) -> list[dict[str, Any]]:
    return [_part(part, role) for part in parts]


def _part(part: dict[str, Any], role: str) -> dict[str, Any]:
    match part["type"]:
        case "text":
            kind = "output_text" if role == "assistant" else "input_text"
            return {"type": kind, "text": part["text"]}
        case "refusal" if role == "assistant":
            return {"type": "refusal", "refusal": part["refusal"]}
        case "image_url" if role == "user":
            image = part["image_url"]
            detail = {"detail": image["detail"]} if image.get("detail") else {}
            return {"type": "input_image", "image_url": image["url"], **detail}
        case "file" if role == "user":
            return {**part["file"], "type": "input_file"}
        case kind:
            raise _Unmappable(kind)


def _format(response_format: dict[str, Any]) -> dict[str, Any]:
    match response_format["type"]:
        case "json_schema":
            return {**response_format["json_schema"], "type": "json_schema"}
        case "text" | "json_object" as kind:
            return {"type": kind}
        case kind:
            raise _Unmappable(kind)


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool["type"] != "function":
        raise _Unmappable("tools")
    # Source: strict is off by default there and on here.
    return {"strict": False, "parameters": {}, **tool["function"], "type": "function"}


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, str):
        return choice
    if choice["type"] != "function":
        raise _Unmappable("tool_choice")
    return {"type": "function", "name": choice["function"]["name"]}

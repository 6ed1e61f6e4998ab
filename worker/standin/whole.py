"""An answer as one JSON object, sent when its last token would have been."""

from typing import Any

from aiohttp import web

from worker.standin.chunk import to_json, tool_call_id
from worker.standin.entry import Outcome
from worker.standin.exchange import Exchange, keep_silent, wait_closed
from worker.standin.script import Script


async def send_whole(exchange: Exchange) -> web.StreamResponse:
    """The object, or what the fault leaves of it.

    `end` keeps the tokens so far without a finish_reason, `error` sends the error in its place
    (with status 200), `cut` and `malformed` send half of it, the latter as if that were all.
    """
    fault, script = exchange.directive.fault, exchange.script
    if fault is not None:
        script = script.first(fault.after)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    delivery = exchange.deliver(response)
    await keep_silent(exchange.directive.first_token)
    await delivery.wait_all_due(len(script.deltas))

    body = to_json(_completion(exchange, script, ended=fault is None))
    length = len(body)
    outcome = Outcome.COMPLETED
    match fault.name if fault is not None else None:
        case "stall":
            await wait_closed()
        case "cut":
            body, outcome = body[: length // 2], Outcome.CUT
        case "malformed":
            length //= 2
            body, outcome = body[:length], Outcome.MALFORMED
        case "error":
            body, outcome = exchange.error_json(500), Outcome.ERRORED
            length = len(body)
        case "end":
            outcome = Outcome.ENDED_EARLY

    response.content_length = length
    await response.prepare(exchange.request)
    await delivery.write(body)
    exchange.entry.token_sent(len(script.deltas))
    if outcome is Outcome.CUT:
        exchange.cut()
        return response
    await response.write_eof()
    exchange.entry.end(outcome)
    return response


def _completion(exchange: Exchange, script: Script, *, ended: bool) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": _message(exchange.answer_id, script),
        "logprobs": None,
        "finish_reason": script.finish_reason if ended else None,
    }
    completion: dict[str, Any] = {
        "id": exchange.answer_id,
        "object": "chat.completion",
        "created": exchange.created,
        "model": exchange.asked.model,
        "choices": [choice],
    }
    if exchange.directive.usage != "none":
        completion["usage"] = script.usage
    return completion


def _message(answer_id: str, script: Script) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if script.tool_names else script.text("content"),
        "refusal": script.text("refusal") or None,
    }
    if reasoning := script.text("reasoning"):
        message["reasoning_content"] = reasoning
    if script.tool_names:
        message["tool_calls"] = [
            {
                "id": tool_call_id(answer_id, index),
                "type": "function",
                "function": {"name": name, "arguments": script.text("tool_arguments", index)},
            }
            for index, name in enumerate(script.tool_names)
        ]
    return message

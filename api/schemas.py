"""The JSON that clients get."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from shared.events import Answer
from shared.generation import Record, State
from shared.ids import GenerationId


class Accepted(BaseModel):
    """The answer to a request for a generation."""

    id: str
    status: State
    events_url: str


class ToolCall(BaseModel):
    """A tool call as far as the model has said it."""

    index: int
    id: str | None
    name: str | None
    arguments: str


class Failure(BaseModel):
    """Why a generation failed."""

    code: str
    message: str
    retryable: bool


class Snapshot(BaseModel):
    """A generation as it stands: its text up to `last_event_id`, from where it can be followed."""

    id: str
    status: State
    text: str
    last_event_id: str
    model: str | None
    usage: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    finish_reason: str | None = None
    error: Failure | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


def describe(generation: GenerationId, record: Record, answer: Answer) -> Snapshot:
    """Return the snapshot of what `record` and the folded log say."""
    closing = answer.closing_data
    return Snapshot(
        id=generation,
        status=State(answer.closing.value) if answer.closing else record.state,
        text=answer.text,
        last_event_id=str(answer.last_id),
        model=record.model,
        usage=record.usage or closing.get("usage"),
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        finish_reason=closing.get("finish_reason"),
        error=Failure.model_validate(closing) if "code" in closing else None,
        reasoning=answer.reasoning or None,
        refusal=answer.refusal or None,
        tool_calls=[
            ToolCall(index=call.index, id=call.id, name=call.name, arguments=call.arguments)
            for call in answer.tool_calls.values()
        ]
        or None,
    )

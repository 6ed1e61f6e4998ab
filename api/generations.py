"""Create, show, cancel and delete a generation."""

import contextlib
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request, Response

from api.dependencies import Held, Process
from api.origin import check_origin
from api.requests import ChatRequest, parse_idempotency_key, parse_request, read_body
from api.schemas import Accepted, Snapshot, describe
from shared.errors import StoreUnavailable
from shared.event_log import PAGE
from shared.events import fold
from shared.generation import Surface
from shared.ids import BEGINNING, GenerationId, parse_generation_id

router = APIRouter(prefix="/v1/generations", tags=["generations"])

_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ChatRequest.model_json_schema()}},
    }
}


@router.post("", status_code=202, response_model=Accepted, openapi_extra=_BODY)
async def create(
    request: Request,
    response: Response,
    process: Process,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Accepted:
    """Accept a generation; a repeat with the same `Idempotency-Key` returns the same one."""
    check_origin(request, process.settings.allowed_origins)
    process.check_not_draining()
    key = parse_idempotency_key(idempotency_key)
    parameters = parse_request(await read_body(request, int(process.settings.max_body)))
    ticket = await process.admission.offer(parameters, Surface.NATIVE, key)
    state = await process.admission.create(ticket)
    location = f"/v1/generations/{ticket.generation}"
    response.headers["Location"] = location
    return Accepted(id=ticket.generation, status=state, events_url=f"{location}/events")


@router.get("/{generation_id}", response_model=Snapshot, response_model_exclude_unset=False)
async def show(generation_id: str, process: Process) -> Snapshot:
    """Return what there is of it, and the id from which to follow the rest."""
    return await _snapshot(process, parse_generation_id(generation_id))


@router.post("/{generation_id}/cancel", response_model=Snapshot)
async def cancel(generation_id: str, request: Request, process: Process) -> Snapshot:
    """End it now; one that has ended is returned as it is."""
    check_origin(request, process.settings.allowed_origins)
    generation = parse_generation_id(generation_id)
    closed = await process.store.cancel(generation)
    if closed.worker:
        await _tell(process, closed.worker, generation)
    return await _snapshot(process, generation)


@router.delete("/{generation_id}", status_code=204)
async def delete(generation_id: str, request: Request, process: Process) -> None:
    """Hide it at once, cancelling it if it runs; its followers see the end first."""
    check_origin(request, process.settings.allowed_origins)
    generation = parse_generation_id(generation_id)
    worker = await process.store.erase(generation)
    if worker:
        await _tell(process, worker, generation)


async def _tell(process: Held, worker: str, generation: GenerationId) -> None:
    """Have the worker stop at once; a message that is lost is made good by its next look."""
    with contextlib.suppress(StoreUnavailable):
        await process.queue.recall(generation, worker)


async def _snapshot(process: Held, generation: GenerationId) -> Snapshot:
    view = await process.view(generation, BEGINNING)
    answer = fold(view.entries)
    page = view.entries
    while len(page) == PAGE:
        page = await process.event_log.read(generation, answer.last_id)
        answer = fold(page, answer)
    return describe(generation, view.record, answer)

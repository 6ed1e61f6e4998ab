"""Live and ready."""

from typing import Any, Final

from fastapi import APIRouter, Response

from api.dependencies import Process
from shared.connections import Client
from shared.errors import StoreUnavailable

router = APIRouter(tags=["health"])

_SAFE_POLICY: Final = "noeviction"
"""Our keys have lifetimes and the queue has none: every other policy may evict live ones."""


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """This process runs."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(response: Response, process: Process) -> dict[str, Any]:
    """This process can take generations; else 503, and why."""
    reasons = []
    if process.hub.draining.is_set():
        reasons.append("draining")
    if not process.hub.hears:
        reasons.append("not connected to Redis for changes of the logs")
    try:
        policy = await _eviction_policy(process.redis)
        if policy not in (None, _SAFE_POLICY):
            reasons.append(
                f"Redis may evict live generations: its maxmemory-policy is {policy}, "
                f"not {_SAFE_POLICY}"
            )
    except StoreUnavailable as error:
        reasons.append(f"Redis is away: {error.reason}")
    if reasons:
        response.status_code = 503
    return {"status": "unready" if reasons else "ready", "reasons": reasons}


async def _eviction_policy(redis: Client) -> str | None:
    """Ask by INFO, which hosted servers allow where they refuse CONFIG. None: it does not say."""
    info: dict[str, str] = await redis.call("INFO", "memory")
    return info.get("maxmemory_policy")

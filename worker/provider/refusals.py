"""Name what a model server did wrong, in codes that a program can branch on."""

from datetime import timedelta
from typing import Any, Final

import openai

from shared.errors import ProviderError, ProviderGarbled, ProviderRefused, ProviderUnreachable

_QUOTA: Final = "insufficient_quota"

_BY_STATUS: Final[dict[int, tuple[str, str, bool]]] = {
    400: ("provider_rejected", "The model server rejected the request.", False),
    401: ("provider_unauthorized", "The model server did not accept our credentials.", False),
    403: ("provider_unauthorized", "The model server did not accept our credentials.", False),
    404: ("provider_not_found", "The model server does not know this model.", False),
    408: ("provider_unavailable", "The model server is unavailable.", True),
    409: ("provider_unavailable", "The model server is unavailable.", True),
    413: ("provider_rejected", "The model server rejected the request.", False),
    422: ("provider_rejected", "The model server rejected the request.", False),
    429: ("provider_rate_limited", "The model server is over its rate limit.", True),
}
_SERVER_FAULT: Final = ("provider_unavailable", "The model server is unavailable.", True)
_CLIENT_FAULT: Final = ("provider_rejected", "The model server rejected the request.", False)


def name_refusal(error: openai.OpenAIError | ValueError) -> ProviderError:
    """Return what `error` of the SDK means. The provider's own words go into `detail` only."""
    detail = str(error)[:2000]
    if isinstance(error, openai.APIStatusError):
        return _name_status(error, detail)
    if isinstance(error, openai.APIConnectionError):
        # With the aiohttp backend a refused connection too appears as APITimeoutError.
        return ProviderUnreachable(
            "provider_unreachable", "The model server cannot be reached.", True, detail
        )
    if isinstance(error, openai.APIError):
        return _name_in_band(error, detail)
    return ProviderGarbled(
        "provider_garbled", "The model server sent something unreadable.", True, detail
    )


def _name_status(error: openai.APIStatusError, detail: str) -> ProviderError:
    status = error.status_code
    if error.code == _QUOTA:
        code, message, retryable = "provider_quota", "The model server's quota is used up.", False
    else:
        fault = _SERVER_FAULT if status >= 500 else _CLIENT_FAULT
        code, message, retryable = _BY_STATUS.get(status, fault)
    return ProviderRefused(
        code,
        message,
        retryable,
        detail,
        retry_after=_parse_retry_after(error.response.headers.get("retry-after")),
        status=status,
    )


def _name_in_band(error: openai.APIError, detail: str) -> ProviderError:
    """An error object in the middle of a stream: the status line said 200 long before."""
    if error.code == _QUOTA:
        return ProviderRefused(
            "provider_quota", "The model server's quota is used up.", False, detail
        )
    return ProviderRefused(
        "provider_failed", "The model server failed in the middle of its answer.", True, detail
    )


def _parse_retry_after(value: Any) -> timedelta | None:
    """Read the seconds form; a date form is rare enough to fall back to our own pace."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return timedelta(seconds=seconds) if 0 <= seconds < 86400 else None

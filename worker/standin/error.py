"""How the stand-in says no: one exception, and OpenAI's error object."""

from typing import Any

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


class RequestInvalid(Exception):
    """The request, or the directive in it, cannot be understood: status 400."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


def error_object(
    status: int, message: str, *, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """The body of an error response, which is also the data of an error inside an answer.

    Source: OpenAI's error object; its quota error repeats the code as its type.
    """
    code = code or _CODES.get(status)
    kind = "invalid_request_error" if status < 500 else "server_error"
    kind = "insufficient_quota" if code == "insufficient_quota" else _TYPES.get(status, kind)
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}

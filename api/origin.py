"""Refuse foreign pages where a request costs money: a browser sends them with the user's address.

Source: Fetch Metadata (`Sec-Fetch-Site`) and the Fetch standard (`Origin`). Programs that are no
browsers send neither and are not meant here.
"""

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from shared.errors import CrossSiteRefused


def check_origin(connection: HTTPConnection, allowed: tuple[str, ...]) -> None:
    """Let same-origin pages, typed addresses and allowed origins pass. Raises: CrossSiteRefused."""
    origin = connection.headers.get("origin")
    if origin in allowed:
        return
    site = connection.headers.get("sec-fetch-site")
    if site in ("cross-site", "same-site"):
        raise CrossSiteRefused(origin or site)
    if origin is None or site == "same-origin":
        return
    try:
        same = urlsplit(origin).netloc == connection.headers.get("host")
    except ValueError:
        same = False
    if not same:
        raise CrossSiteRefused(origin)

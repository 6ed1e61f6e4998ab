"""Pages of other sites may not spend money with the user's address."""

import pytest
from starlette.requests import HTTPConnection

from api.origin import check_origin
from shared.errors import CrossSiteRefused

HOST = "rejoin.example:8000"
APP = "https://app.example"


def connection(**headers: str | None) -> HTTPConnection:
    """A request with these headers, underscores as dashes; `None` leaves one out."""
    pairs = [
        (name.replace("_", "-").encode(), value.encode())
        for name, value in {"host": HOST, **headers}.items()
        if value is not None
    ]
    return HTTPConnection({"type": "http", "headers": pairs})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec_fetch_site": "none"},
        {"sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "same-origin", "origin": f"https://{HOST}"},
        {"origin": f"http://{HOST}"},
        {"origin": f"https://{HOST}"},
        {"origin": APP},
        {"origin": APP, "sec_fetch_site": "cross-site"},
        {"origin": APP, "sec_fetch_site": "same-site"},
        # Behind a proxy that names another host, the browser's own word counts.
        {"origin": "https://public.example", "sec_fetch_site": "same-origin"},
    ],
)
def test_programs_own_pages_and_allowed_sites_pass(headers: dict[str, str]) -> None:
    """curl sends nothing, our own page is same-origin, the operator may name others."""
    check_origin(connection(**headers), (APP,))


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "https://evil.example", "sec_fetch_site": "cross-site"},
        {"origin": f"https://{HOST}", "sec_fetch_site": "cross-site"},
        {"origin": f"https://evil.example/{HOST}"},
        {"origin": f"https://{HOST}.evil.example"},
        {"origin": f"https://{HOST}@evil.example"},
        {"origin": "https://rejoin.example"},
        {"origin": "null"},
        {"origin": "null", "sec_fetch_site": "cross-site"},
        {"origin": "null", "host": None},
        {"origin": ""},
        {"origin": "http://app.example"},
        {"origin": f"{APP}:444"},
        {"origin": f"{APP}.evil.example"},
    ],
)
def test_pages_of_other_sites_are_refused(headers: dict[str, str | None]) -> None:
    """Whether an old browser sends only `Origin`, a new one also `Sec-Fetch-Site`, or only that."""
    with pytest.raises(CrossSiteRefused):
        check_origin(connection(**headers), (APP,))


@pytest.mark.parametrize("origin", ["http://[", "https://[::1", "//[x]", "http://a]b"])
def test_an_origin_that_cannot_be_read_is_a_foreign_one(origin: str) -> None:
    """Nonsense in a header is refused, not a crash."""
    with pytest.raises(CrossSiteRefused):
        check_origin(connection(origin=origin), (APP,))


def test_a_refusal_names_the_origin() -> None:
    """So that an operator knows what to allow."""
    with pytest.raises(CrossSiteRefused) as refusal:
        check_origin(connection(origin="https://evil.example"), ())
    assert refusal.value.origin == "https://evil.example"

"""Every error a client can meet has a row, and looks as RFC 9457 says."""

import inspect
import json
from collections.abc import Iterator
from datetime import timedelta

import pytest

from api import problems
from shared import errors
from shared.errors import (
    AppendRefused,
    NotAdmitted,
    ProviderError,
    RecordUnreadable,
    Refused,
    RejoinError,
    RequestInvalid,
    StoreUnavailable,
    Unavailable,
)


def below(branch: type[RejoinError]) -> Iterator[type[RejoinError]]:
    """All errors derived from this one."""
    for child in branch.__subclasses__():
        yield child
        yield from below(child)


def leaves(branch: type[RejoinError]) -> list[type[RejoinError]]:
    """The errors that can be raised: those nothing is derived from."""
    return [error for error in below(branch) if not error.__subclasses__()]


FOR_CLIENTS = [*leaves(Refused), *leaves(Unavailable), RecordUnreadable]


def example(leaf: type[RejoinError]) -> RejoinError:
    """One error of this kind, with facts of the right types."""
    facts: dict[object, object] = {str: "x", int: 7, timedelta: timedelta(seconds=1.2)}
    parameters = inspect.signature(leaf).parameters.values()
    return leaf(*(facts[parameter.annotation] for parameter in parameters))


@pytest.mark.parametrize("leaf", FOR_CLIENTS, ids=lambda leaf: leaf.__name__)
def test_every_error_for_clients_has_a_row(leaf: type[RejoinError]) -> None:
    """Whoever adds a leaf to these branches says how it looks outside."""
    assert leaf in problems.TABLE


def test_the_table_has_no_other_rows() -> None:
    """What a writer or a provider meets never becomes a response by itself."""
    assert set(problems.TABLE) == set(FOR_CLIENTS)
    assert set(FOR_CLIENTS).isdisjoint([*leaves(AppendRefused), *leaves(ProviderError)])


def test_every_error_is_drawn() -> None:
    """The picture on top of the file shows each error, and none that is not there."""
    lines = (errors.__doc__ or "").splitlines()
    drawn = {line.split("──")[1].split()[0] for line in lines if "──" in line}
    known = {error.__name__ for error in below(RejoinError)}
    assert drawn == known


@pytest.mark.parametrize("leaf", FOR_CLIENTS, ids=lambda leaf: leaf.__name__)
def test_every_problem_has_the_members_that_programs_branch_on(leaf: type[RejoinError]) -> None:
    """Status, title and a code, as `application/problem+json`, never stored by a cache."""
    response = problems.to_response(example(leaf))
    body = json.loads(bytes(response.body))
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert body["status"] == response.status_code == problems.TABLE[leaf].status
    assert body["code"] == problems.TABLE[leaf].code
    assert body["title"]


def test_codes_are_stable_names_and_unique() -> None:
    """Two errors never look the same to a program."""
    codes = [row.code for row in problems.TABLE.values()]
    assert len(set(codes)) == len(codes)
    assert all(code.isidentifier() and code.islower() for code in codes)


@pytest.mark.parametrize("leaf", FOR_CLIENTS, ids=lambda leaf: leaf.__name__)
def test_the_branch_decides_what_the_client_may_do(leaf: type[RejoinError]) -> None:
    """Refused is the client's fault, 4xx; unavailable is worth another try and says when.

    What is unreadable is nobody's fault who asks, and another try brings the same.
    """
    response = problems.to_response(example(leaf))
    if issubclass(leaf, Unavailable):
        assert response.status_code in (429, 503)
        assert int(response.headers["retry-after"]) >= 1
    else:
        assert (response.status_code < 500) is issubclass(leaf, Refused)
        assert "retry-after" not in response.headers


def test_a_pause_is_rounded_up_to_whole_seconds() -> None:
    """`Retry-After` knows no fractions, and 0 would mean at once."""
    response = problems.to_response(NotAdmitted(timedelta(milliseconds=1200)))
    assert response.headers["retry-after"] == "2"


def test_a_problem_says_where_the_request_is_wrong() -> None:
    """The pointer and the sentence reach the client."""
    body = json.loads(bytes(problems.to_response(RequestInvalid("/n", "Must be 1.")).body))
    assert (body["pointer"], body["detail"]) == ("/n", "Must be 1.")


def test_a_problem_does_not_show_what_redis_said() -> None:
    """Our own trouble is logged, not told."""
    response = problems.to_response(StoreUnavailable("10.0.0.7:6379 refused"))
    assert b"10.0.0.7" not in bytes(response.body)

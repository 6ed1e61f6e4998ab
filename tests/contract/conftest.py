"""What the storage tests share: the stores over each backend, and a second, threaded way in."""

from collections.abc import Iterator

import fakeredis
import pytest
import redis
import redis.asyncio

from shared.connections import SyncClient
from tests.support.stores import Stores


@pytest.fixture
def stores(redis_client: redis.asyncio.Redis) -> Stores:
    """Log, record and queue over [fakeredis], [valkey], [redis]."""
    return Stores(redis_client)


@pytest.fixture
def sync_client(redis_client: redis.asyncio.Redis) -> Iterator[SyncClient]:
    """A client of the same store for code that runs in a thread."""
    options = redis_client.connection_pool.connection_kwargs
    connection: redis.Redis
    if isinstance(redis_client, fakeredis.FakeAsyncRedis):
        connection = fakeredis.FakeRedis(server=options["server"], protocol=2)
    else:
        connection = redis.Redis(host=options["host"], port=options["port"], protocol=2)
    with connection:
        yield SyncClient(connection)

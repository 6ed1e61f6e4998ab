"""Workers that freeze, hang or are told to end: another goes on, and within which bound."""

import time
from datetime import timedelta

import pytest

from tests.support import promises_hang
from tests.support.fold import fold
from tests.support.processes import Process
from tests.support.promises import PROMISES, SLACK
from tests.support.promises_site import Strike, open_site
from tests.support.stack import expected_text, open_stack

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


async def test_a_frozen_worker_is_followed_by_another_in_time() -> None:
    """SIGSTOP is a death to its clients: the answer begins anew with whoever is awake."""
    env = {"WORKER_LEASE": "1", "WORKER_RENEWAL": "0.25", "WORKER_MARK": "0.5"}
    bound = PROMISES["worker killed"].bound.within(env)
    async with open_site(workers=2, worker_env=env) as site:
        strike = Strike("[standin tokens=60 pace=100] Frozen", share=0.2)
        recovery = await site.strike(strike, Process.freeze)
        recovery.check("restart", continues=[None, None])
        assert recovery.took <= bound + SLACK


async def test_a_worker_whose_loop_hangs_is_followed_by_another_in_time() -> None:
    """Its lease thread lives and would renew for ever: it stops once the loop is known to hang."""
    bound = PROMISES["worker hangs"].bound.within()
    async with open_site(workers=2, module=promises_hang.__name__) as site:
        strike = Strike("[standin tokens=60 pace=100] Hangs", share=0.2)
        recovery = await site.strike(strike, lambda victim: victim.signal(promises_hang.HANG))
        recovery.check("restart", continues=[None, None])
        assert recovery.took <= bound + SLACK


async def test_a_worker_told_to_end_hands_over_what_its_drain_cannot_finish() -> None:
    """SIGTERM: a short answer ends as if nothing were, a long one is another worker's at once."""
    env = {"WORKER_DRAIN": "1"}
    bound = PROMISES["worker told to end"].bound.within(env)
    short, long = "[standin tokens=20 pace=40] Short", "[standin tokens=80 pace=25] Long"
    async with open_stack(workers=2, worker_env=env) as stack:
        leaving, staying = stack.workers
        staying.freeze()  # so that both generations are the other's
        short_id, long_id = await stack.create(short), await stack.create(long)
        async with stack.follow(short_id) as reads_short, stack.follow(long_id) as reads_long:
            await reads_short.read_until("token")
            await reads_long.read_until("token")
            staying.thaw()
            told_at = time.monotonic()
            leaving.terminate()
            await reads_long.read_until("started")
            took = timedelta(seconds=time.monotonic() - told_at)
            await reads_long.read_to_end()
            await reads_short.read_to_end()
            long_text, short_text = fold(reads_long.events), fold(reads_short.events)
    assert took <= bound + SLACK
    assert (long_text.text, len(long_text.attempts)) == (expected_text(long), 2)
    assert (short_text.text, len(short_text.attempts)) == (expected_text(short), 1)

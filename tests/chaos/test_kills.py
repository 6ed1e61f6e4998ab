"""Whenever a worker is killed, the next one has gone on before the bound."""

from datetime import timedelta

import pytest

from tests.support.promises import PROMISES, SLACK
from tests.support.promises_site import Strike, open_site

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

CONTINUES = {"WORKER_LADDER": '{"*": ["continue", "restart"]}'}

# Early, in the middle and late in the text; right after a renewal of the lease, which comes every
# half second, and right before the next.
STRIKES = [
    Strike("[standin tokens=200 pace=150] Kill 1", share=0.0, phase=timedelta(seconds=0.02)),
    Strike("[standin tokens=200 pace=150] Kill 2", share=0.2, phase=timedelta(seconds=0.18)),
    Strike("[standin tokens=200 pace=150] Kill 3", share=0.4, phase=timedelta(seconds=0.32)),
    Strike("[standin tokens=200 pace=150] Kill 4", share=0.5, phase=timedelta(seconds=0.46)),
]


async def test_a_killed_workers_answer_goes_on_in_time_whenever_it_was_killed() -> None:
    """By default settings, with nobody's help: not a byte wrong, and what was said is kept."""
    bound = PROMISES["worker killed"].bound.within(CONTINUES)
    # Enough of them that none has to be started while the time counts.
    async with open_site(workers=len(STRIKES) + 1, worker_env=CONTINUES) as site:
        for strike in STRIKES:
            recovery = await site.strike(strike)
            recovery.check("continue", continues=[None, len(recovery.held)])
            assert recovery.took <= bound + SLACK
        await site.wait_idle()

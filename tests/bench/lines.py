"""Every line there is. A new one is a file with a `LINE`, and its name here."""

from tests.bench import (
    append_cost,
    cancel,
    first_token,
    generations,
    pick_up,
    recovery,
    throughput,
    token_cost,
)
from tests.bench.delivery import (
    capacity,
    fan_out,
    idle,
    latency,
    long_log,
    redis_memory,
    storm,
)

LINES = {
    line.name: line
    for line in (
        first_token.LINE,
        throughput.LINE,
        token_cost.LINE,
        append_cost.LINE,
        generations.LINE,
        recovery.LINE,
        pick_up.LINE,
        cancel.LINE,
        latency.LINE,
        capacity.LINE,
        fan_out.LINE,
        storm.LINE,
        idle.LINE,
        long_log.LINE,
        redis_memory.LINE,
    )
}

"""How many tokens a second one worker core carries, beside the plain loop of XADDs.

Both workers have the same core in turn, alone; the model, Redis and the bench share the others. A
token counts once it stands in a log whose text is, byte for byte, what the model said.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from statistics import median

from tests.bench.carriers import Carrier, open_naive, open_rejoin
from tests.bench.line import FULL, Line, Result, Scale
from tests.bench.process_cost import Cores, Cost, Meter, pin, share_out_cores
from tests.bench.table import cell
from tests.support.processes import Process, free_port, open_process
from tests.support.stack import expected_tokens


@dataclass(frozen=True, slots=True)
class Load:
    """How the model speaks, and how much of it there is."""

    name: str
    pace: int
    """Tokens a second of each answer; 0 is as fast as the model can."""
    at_once: int
    """Answers at once; as many slots has the worker."""
    tokens: int
    """Of each answer."""
    tokens_quick: int
    our_rounds: int
    """Answers that our worker gives in each slot, one after the other, where the plain loop gives
    one: a turn should last for seconds with either of them."""


LOADS = (
    Load("as fast as it can", 0, at_once=50, tokens=1_000, tokens_quick=400, our_rounds=3),
    # More than either can carry, but no token comes before its time.
    Load("200 tokens/s", 200, at_once=200, tokens=500, tokens_quick=200, our_rounds=2),
)

_WARM_UP_TOKENS = 20

WANTED = 4.0
"""How many times the plain loop's tokens a core of ours should carry."""

SATURATED = 0.9
"""Below it, something else than the worker's core set the pace."""

AT_EASE = 0.7
"""Above it, the model may have set the pace."""

PROCESSES = ("worker", "model", "redis")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one arm did in one run."""

    tokens: int
    """That stand in the texts."""
    entries: int
    cost: Cost

    @property
    def per_second(self) -> float:
        """Tokens a second."""
        return self.tokens / self.cost.seconds

    @property
    def per_entry(self) -> float:
        """How many tokens were joined into one entry."""
        return self.tokens / self.entries

    def microseconds(self, process: str) -> float:
        """Processor time for one token."""
        return self.cost.busy[process] / self.tokens * 1e6


@dataclass(slots=True)
class Arm:
    """One carrier under one load, and what it did."""

    load: Load
    carrier: Carrier
    rounds: int
    turns: list[Turn] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Tokens a second in the middle run."""
        return median(turn.per_second for turn in self.turns)


@asynccontextmanager
async def _open_arms(load: Load, cores: Cores) -> AsyncIterator[tuple[Process, list[Arm]]]:
    """Start the model and both workers, these on the core that is kept for them."""
    async with AsyncExitStack() as exits:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        model = await exits.enter_async_context(
            open_process("worker.standin", {"STANDIN_PORT": str(port)}, f"{url}/healthz")
        )
        settings = {"WORKER_MAX_GENERATIONS": str(load.at_once)}
        plain = await exits.enter_async_context(open_naive(url, load.at_once))
        ours = await exits.enter_async_context(open_rejoin(url, settings))
        pin(plain.worker, cores.tested)
        pin(ours.worker, cores.tested)
        yield model, [Arm(load, plain, 1), Arm(load, ours, load.our_rounds)]


async def _take_turn(arm: Arm, model: Process, name: str, tokens: int) -> Turn:
    """Have every slot of the worker answer its prompts.

    Raises: AssertionError: a text is not what the model said.
    """
    carrier, load = arm.carrier, arm.load
    prompts = [
        f"[standin tokens={tokens} pace={load.pace}] {name}, {carrier.name}, {number}"
        for number in range(load.at_once * arm.rounds)
    ]
    said = [expected_tokens(prompt) for prompt in prompts]
    pids = (carrier.worker.pid, model.pid, carrier.server.pid)
    meter = Meter(dict(zip(PROCESSES, pids, strict=True)))
    names = await carrier.ask(prompts)
    await carrier.wait_closed(names)
    cost = meter.read()
    entries = 0
    for answer, expected in zip(names, said, strict=True):
        text, count = await carrier.take(answer)
        entries += count
        assert text == "".join(expected), f"{name}: {carrier.name} garbled answer {answer}"
    await carrier.wait_idle()
    return Turn(sum(map(len, said)), entries, cost)


async def _measure_load(load: Load, cores: Cores, scale: Scale) -> list[Arm]:
    tokens = load.tokens if scale == FULL else load.tokens_quick
    async with _open_arms(load, cores) as (model, arms):
        for arm in arms:
            await _take_turn(arm, model, "warm-up", _WARM_UP_TOKENS)
        for run in range(scale.runs):
            for arm in arms:
                arm.turns.append(await _take_turn(arm, model, f"run {run}", tokens))
    return arms


async def measure(scale: Scale) -> Result:
    """Run both arms under every load, alternating, and compare."""
    with share_out_cores() as cores:
        measured = [await _measure_load(load, cores, scale) for load in LOADS]
    arms = [arm for pair in measured for arm in pair]
    ratios = {ours.load.name: ours.speed / plain.speed for plain, ours in measured}
    return Result(
        columns=[
            "model speaks",
            "worker",
            "tokens/s",
            "tokens per entry",
            *("worker's core", "model's", "Redis'"),
            *("worker, µs/token", "Redis"),
        ],
        rows=[_row(arm) for arm in arms],
        notes=[
            " ".join(
                f"Model {name}: **{ratio:.1f} times** the tokens of the plain loop."
                for name, ratio in ratios.items()
            ),
            *(_describe(load, scale) for load in LOADS),
            f"{scale.runs} runs, in which the arms take turns; in each cell the median over the"
            " runs (least to most). Tokens are counted in the final texts, each of which is byte"
            " for byte what the model said.",
            f"The worker has core {_names(cores.tested)} for itself; model, Redis and bench are"
            f" on {_names(cores.rest)}.",
        ],
        data={
            "ratios": ratios,
            "arms": [
                {
                    "load": arm.load.name,
                    "carrier": arm.carrier.name,
                    "turns": [{**asdict(t), "per_second": t.per_second} for t in arm.turns],
                }
                for arm in arms
            ],
        },
        failures=[*_find_worthless(arms), *_find_missed(ratios)],
    )


def _row(arm: Arm) -> list[str]:
    turns = arm.turns
    return [
        arm.load.name,
        arm.carrier.name,
        cell([turn.per_second for turn in turns], ",.0f"),
        cell([turn.per_entry for turn in turns], ".1f"),
        *(cell([turn.cost.share(name) for turn in turns], ".0%") for name in PROCESSES),
        *(cell([turn.microseconds(name) for turn in turns], ".1f") for name in ("worker", "redis")),
    ]


def _describe(load: Load, scale: Scale) -> str:
    tokens = load.tokens if scale == FULL else load.tokens_quick
    return (
        f"Model {load.name}: {load.at_once} answers of {tokens:,} tokens at once; in a run the"
        f" plain loop carries {load.at_once} of them, Rejoin {load.at_once * load.our_rounds}."
    )


def _find_worthless(arms: Sequence[Arm]) -> Iterator[str]:
    """What makes the figures of a run say something else than they seem to."""
    for arm in arms:
        for run, turn in enumerate(arm.turns):
            where = f"model {arm.load.name}, {arm.carrier.name}, run {run}:"
            worker, model = turn.cost.share("worker"), turn.cost.share("model")
            if worker < SATURATED:
                waited = turn.cost.waited["worker"] / turn.cost.seconds
                yield (
                    f"{where} the worker used {worker:.0%} of its core, not {SATURATED:.0%};"
                    f" others had it for {waited:.0%} of the time"
                )
            if model > AT_EASE:
                yield f"{where} the model used {model:.0%} of its core"


def _find_missed(ratios: dict[str, float]) -> Iterator[str]:
    for name, ratio in ratios.items():
        if ratio < WANTED:
            yield f"model {name}: {ratio:.2f} times the tokens of the plain loop, not {WANTED:g}"


def _names(cores: frozenset[int]) -> str:
    return ", ".join(str(core) for core in sorted(cores))


LINE = Line("throughput", "How many tokens a second does one worker core carry?", measure)

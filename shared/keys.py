"""The names of everything Rejoin keeps in Redis.

| key | kind | store | lifetime |
|---|---|---|---|
| `<prefix>gen:{<id>}` | hash, the record | log | longest life; after the end: retention |
| `<prefix>gen:{<id>}:log` | stream, the log | log | the same |
| `<prefix>gen:secret` | string, keys the derived ids | log | outlives every id derived from it |
| `<prefix>arq:queue` | sorted set, id → due time in ms | queue | none |
| `arq:job:<id>` | string, arq's job | queue | the generation's longest life |
| `arq:in-progress:<id>` | string, owner's lease token | queue | a day; longer than any generation |
| `arq:retry:<id>` | string, arq's counter | queue | arq's, 1 day |
| `<prefix>gen:wake` | list, bounded | queue | none |
| `<prefix>gen:control:<worker>` | list | queue | a minute |

The braces are a hash tag: record and log of one generation share a slot of a Redis Cluster.
arq's own prefixes are constants in arq; generation ids are unique, so they need no prefix of ours.
"""

from dataclasses import dataclass
from typing import Final

from shared.ids import GenerationId

JOB_PREFIX: Final = "arq:job:"
OWNER_PREFIX: Final = "arq:in-progress:"
RETRY_PREFIX: Final = "arq:retry:"


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names under one prefix, so that several deployments can share a Redis."""

    prefix: str = ""

    def record(self, generation: GenerationId) -> str:
        """Return the hash that describes `generation`."""
        return f"{self.prefix}gen:{{{generation}}}"

    def log(self, generation: GenerationId) -> str:
        """Return the stream that holds the events of `generation`."""
        return f"{self.prefix}gen:{{{generation}}}:log"

    @property
    def secret(self) -> str:
        """The string that keys derived generation ids."""
        return f"{self.prefix}gen:secret"

    @property
    def queue(self) -> str:
        """arq's sorted set: job id → when it is due, in milliseconds of Redis' clock."""
        return f"{self.prefix}arq:queue"

    @property
    def wake(self) -> str:
        """The list that idle workers block on."""
        return f"{self.prefix}gen:wake"

    def control(self, worker: str) -> str:
        """Return the list on which `worker` hears of cancels."""
        return f"{self.prefix}gen:control:{worker}"

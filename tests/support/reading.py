"""One hand-written log as a client of either surface reads it."""

from dataclasses import dataclass
from typing import Self

from shared.connections import Client
from shared.generation import Surface
from tests.support.api_client import chat_path, follow_path
from tests.support.author import Author, token
from tests.support.fold import fold, fold_log
from tests.support.fold_chat import fold_chat
from tests.support.follower import Follower
from tests.support.sse_reader import Event


@dataclass(frozen=True, slots=True)
class Reading:
    """Where the log is read on its surface, and how what was read is judged."""

    author: Author
    surface: Surface

    @classmethod
    async def begin(cls, client: Client, surface: Surface) -> Self:
        """Of a new log that has a little history."""
        author = await Author.create(client, surface)
        await author.claim()
        await author.say(token("Hel"), token("lo\n"), token(" é"))
        return cls(author, surface)

    def open(self, url: str, cursor: str | None = None) -> Follower:
        """Follow from `cursor`, or from the beginning."""
        if self.surface is Surface.NATIVE:
            return Follower(url, follow_path(self.author.generation), cursor)
        beginning = f"{self.author.generation}/0-0"
        return Follower(url, chat_path("come back"), cursor or beginning)

    async def resume(self, url: str, first: Follower) -> list[Event]:
        """Everything `first` still brings, and what a second connection brings beyond it."""
        await first.read_to_end()
        async with self.open(url, first.last_event_id) as second:
            return [*first.events, *(await second.read_to_end() if second.status != 204 else [])]

    async def check(self, events: list[Event]) -> None:
        """Raises AssertionError unless `events` say what the whole log says."""
        said = fold_log(await self.author.raw())
        read = fold(events) if self.surface is Surface.NATIVE else fold_chat(events)
        assert said.text == read.text, "the text is not what was said"
        assert said.closing_type == read.closing_type

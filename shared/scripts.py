"""The atomic moves: one Lua file of `shared/lua` each; its header says KEYS, ARGV and reply."""

import hashlib
from datetime import timedelta
from importlib.resources import files
from typing import Final

_FLAGS: Final = "-- flags: "


class Script:
    """The text of one Lua file and its digest.

    A first line `-- flags: <flags>` becomes the `#!lua flags=` line of Redis 7; for servers that
    refuse such a line (`flags=False`) it stays a comment.
    """

    __slots__ = ("name", "sha", "text")

    def __init__(self, name: str, *, flags: bool = True) -> None:
        text = files("shared").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
        if flags and text.startswith(_FLAGS):
            named, _, body = text.removeprefix(_FLAGS).partition("\n")
            text = f"#!lua flags={named}\n{body}"
        self.name = name
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def to_ms(duration: timedelta) -> int:
    """Return `duration` as the moves take it: whole milliseconds."""
    return round(duration / timedelta(milliseconds=1))

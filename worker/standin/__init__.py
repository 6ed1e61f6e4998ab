"""A model server that needs no key, for the demo, the tests and the benchmarks.

It speaks OpenAI's HTTP API, answers with a text that anybody can compute again (`script.answer`),
fails in the ways models fail when a prompt tells it to (`directive.Directive`), and remembers
every request it had (`ledger.Ledger`).

`directive.py script.py ledger.py admission.py` know no API surface; each surface is one file that
`app.py` names the routes of: `chat.py`, Chat Completions, and `responses/routes.py`, Responses.
"""

from worker.standin.app import Standin, create_app, open_standin
from worker.standin.entry import Connection, Entry, Outcome
from worker.standin.ledger import Ledger
from worker.standin.request import request_key
from worker.standin.script import Script, answer, compose
from worker.standin.settings import StandinSettings

__all__ = [
    "Connection",
    "Entry",
    "Ledger",
    "Outcome",
    "Script",
    "Standin",
    "StandinSettings",
    "answer",
    "compose",
    "create_app",
    "open_standin",
    "request_key",
]

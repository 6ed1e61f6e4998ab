"""Every line there is. A new one is a file with a `LINE`, and its name here."""

from tests.bench import first_token

LINES = {line.name: line for line in (first_token.LINE,)}

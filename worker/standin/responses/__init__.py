"""The Responses API: an answer that may outlive the connection it was asked for on.

`run.py` makes the events of a response, one after the other, and remembers them; whoever follows it
over a connection (`following.py`) has them from there. In the background nothing else drives it;
otherwise its one connection does, and its end is the run's.

    request.py ─► run.py (narration.py, item.py: what is said) ─► following.py, whole.py ─► client
                    └─ runs.py: by id, for retrieve, cancel and delete
"""

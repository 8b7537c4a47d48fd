"""Tells when a client with a private lane has long sent nothing but simple commands, and may leave that lane.

Each time it takes twice as long, so that a lane that is needed now and then is not opened again and again.
"""

from __future__ import annotations

#: One of so many reads is looked at: most clients that have a private lane need it.
LOOK_EVERY = 16
#: So many looks in a row have to find nothing else, the first time.
_FIRST_LOOKS = 2


class Calm:
    """Of one client."""

    __slots__ = ("_looks", "_looks_needed", "_reads")

    def __init__(self) -> None:
        self._reads = 0  # that came while it had a private lane
        self._looks = 0  # in a row, that found nothing but simple commands
        self._looks_needed = _FIRST_LOOKS

    def is_due(self) -> bool:
        """Count a read; whether it is to be looked at."""
        self._reads += 1
        return self._reads % LOOK_EVERY == 0

    def saw(self, is_simple: bool) -> bool:
        """Count a look, which found only simple commands or something else; whether that was the last one needed."""
        self._looks = self._looks + 1 if is_simple else 0
        return self._looks >= self._looks_needed

    def disturb(self) -> None:
        """Something else came: begin anew."""
        self._looks = 0

    def back_off(self) -> None:
        """It leaves its lane: the next time it takes twice as many looks."""
        self._looks = 0
        self._looks_needed *= 2

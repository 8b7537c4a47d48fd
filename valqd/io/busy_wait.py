"""Keeps the loop awake for the few microseconds in which a nearby backend is about to answer.

To sleep and be woken takes longer than most calls take in Valkey.  So after sending, the loop only looks for events,
for MOST_S at the most, and only while the backend has been answering that soon.  An idle daemon sends nothing and so
sleeps.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

from valqd.protocol.coalescer import Coalescer

#: Longest time awake after a call was sent.
MOST_S = 100e-6
#: A backend that takes longer than this to answer a lone call is slept for.
_NEAR_S = 300e-6


class BusyWait:
    """Of one lane.  ``allowed``: there is a core on which the backend can run meanwhile."""

    def __init__(self, loop: asyncio.AbstractEventLoop, coalescer: Coalescer, allowed: bool) -> None:
        self._loop = loop
        self._coalescer = coalescer
        self._allowed = allowed
        self._near = allowed
        self._sent_at = 0.0
        self._timing = False  # the backend was idle when calls were last sent
        self._awake = False

    def sent(self, was_idle: bool) -> None:
        """Calls were sent, to a backend that ``was_idle`` for all this lane knows."""
        self._sent_at = perf_counter()
        self._timing = was_idle
        if self._near and not self._awake:
            self._awake = True
            self._loop.call_soon(self._stay_awake)

    def answered(self) -> None:
        """Replies came."""
        if self._timing:
            self._timing = False
            self._near = self._allowed and perf_counter() - self._sent_at < _NEAR_S

    def _stay_awake(self) -> None:
        if self._coalescer.sent and perf_counter() - self._sent_at < MOST_S:
            self._loop.call_soon(self._stay_awake)
        else:
            self._awake = False

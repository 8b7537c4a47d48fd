"""Keeps the loop awake for the few microseconds in which something nearby is about to answer.

To sleep and be woken takes longer than most calls take in Valkey, and than a client on this host takes to send its next
command.  So after sending to the backend the loop only looks for events, for AWAIT_REPLY_S at the most, while the
backend has been answering that soon; and after answering a client that is alone, for AWAIT_COMMAND_S, while that brings
its next command.  An idle daemon sleeps.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

from valqd.protocol.coalescer import Coalescer

#: Longest time awake after a call was sent.
AWAIT_REPLY_S = 100e-6
#: A backend that takes longer than this to answer a lone call is slept for.
_NEAR_S = 300e-6
#: When more clients sent something in a turn, there is enough to do: to look more often would only make turns smaller.
_MOST_CLIENTS = 6
#: Time awake after the only client was answered.
AWAIT_COMMAND_S = 160e-6
#: After so many times in a row in which that brought nothing, it is only tried now and then.
_MOST_MISSES = 3
_TRY_AGAIN_EVERY = 64


class BusyWait:
    """Of one lane.  ``allowed``: there is a core on which the others can run meanwhile."""

    def __init__(self, loop: asyncio.AbstractEventLoop, coalescer: Coalescer, allowed: bool) -> None:
        self._loop = loop
        self._coalescer = coalescer
        self._allowed = allowed
        self._near = allowed
        self._sent_at = 0.0
        self._timing = False  # the backend was idle when calls were last sent
        self._alone = False  # and what was sent was one client's
        self._expects_until = 0.0  # that client's next command
        self._misses = 0
        self._awake = False

    def sent(self, was_idle: bool) -> None:
        """Calls were sent, to a backend that ``was_idle`` for all this lane knows."""
        now = perf_counter()
        if self._expects_until:
            self._misses = 0 if now < self._expects_until else self._misses + 1
            self._expects_until = 0.0
        sent = self._coalescer.sent
        self._sent_at = now
        self._timing = was_idle
        self._alone = was_idle and len(sent) == 1 and len(sent[0].deals) == 1
        if self._near and self._coalescer.crowd <= _MOST_CLIENTS:
            self._stay()

    def answered(self) -> None:
        """Replies came."""
        if not self._timing:
            return
        self._timing = False
        now = perf_counter()
        self._near = self._allowed and now - self._sent_at < _NEAR_S
        if self._alone and self._near:
            if self._misses < _MOST_MISSES or self._misses % _TRY_AGAIN_EVERY == 0:
                self._expects_until = now + AWAIT_COMMAND_S
                self._stay()
            else:
                self._misses += 1

    def _stay(self) -> None:
        if not self._awake:
            self._awake = True
            self._loop.call_soon(self._stay_awake)

    def _stay_awake(self) -> None:
        now = perf_counter()
        if (self._coalescer.sent and now - self._sent_at < AWAIT_REPLY_S) or now < self._expects_until:
            self._loop.call_soon(self._stay_awake)
        else:
            self._awake = False

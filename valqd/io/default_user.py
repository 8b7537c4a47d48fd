"""Whether clients that have not authenticated may do anything: asked of the backend, since it may change at any time.

A shared lane that needed no password goes on without one when the default user gets one; so do Valkey's connections.
But a new client is to be asked for it.  So when clients connect, a new connection finds out what Valkey answers who has
not authenticated; if that has changed, new clients get a new lane.  The answer is believed for _KNOWN_S.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from valqd.io.backend import Backend, is_turned_away
from valqd.protocol.host import WorkerState

_KNOWN_S = 0.1
_TIMEOUT_S = 1.0


class DefaultUser:
    """Calls ``changed`` when the default user has got a password, or has none any more (see ``password_needed``)."""

    def __init__(self, backend: Backend, state: WorkerState, changed: Callable[[], None]) -> None:
        self._backend = backend
        self._state = state
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._known_until = 0.0
        self._waiting: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def is_known(self) -> bool:
        """Whether the backend was asked within the last _KNOWN_S."""
        return self._loop.time() < self._known_until

    def ask(self, then: Callable[[], None]) -> None:
        """Ask the backend, unless that is under way.

        ``then`` runs in a later turn of the loop, when the answer has come, or has not come within _TIMEOUT_S.
        """
        self._waiting.append(then)
        if len(self._waiting) == 1:
            self._task = asyncio.ensure_future(self._ask())

    async def _ask(self) -> None:
        try:
            with contextlib.suppress(OSError):
                answer = await self._backend.ping(_TIMEOUT_S)
                if not is_turned_away(answer):  # which tells nothing of passwords
                    needed = answer.startswith(b"-NOAUTH")
                    if bool(self._state.password_needed) != needed:
                        self._changed()
                    self._state.password_needed = needed
            self._known_until = self._loop.time() + _KNOWN_S
        finally:
            waiting, self._waiting = self._waiting, []
            for then in waiting:
                self._loop.call_soon(then)

    def close(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()

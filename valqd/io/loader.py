"""Loads the functions when a call finds none: once for all that ask for it meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from valqd.errors import STATE_CODES, BackendDown, CommandError, ControlLost, StartError

#: Errors that tell of the backend's state: the client gets them as Valkey worded them, as when the functions are there.
_OF_ITS_STATE = tuple(f"{code} " for code in (*STATE_CODES, "OOM", "READONLY"))

log = logging.getLogger(__name__)


class FunctionLoader:
    """Of one worker.  ``load_library`` does the work, and raises StartError or ControlLost; nothing here does."""

    def __init__(self, load_library: Callable[[], Awaitable[None]]) -> None:
        self._load_library = load_library
        self._loading: asyncio.Task[None] | None = None
        self._waiting: list[Callable[[bytes | None], None]] = []

    def load(self, done: Callable[[bytes | None], None]) -> None:
        """Have the backend load the functions; ``done`` gets why that failed, as an error reply, or None."""
        self._waiting.append(done)
        if self._loading is None or self._loading.done():
            self._loading = asyncio.ensure_future(self._load_and_tell())

    async def _load_and_tell(self) -> None:
        failure: bytes | None = None
        try:
            await self._load_library()
        except StartError as error:
            if error.refusal.startswith(_OF_ITS_STATE):  # not NOPERM: that is about the daemon's own user
                failure = b"-%b\r\n" % error.refusal.encode("utf-8", "surrogateescape")
            else:
                failure = CommandError(f"the queue functions cannot be loaded: {error}").resp()
        except ControlLost:
            failure = BackendDown().resp()
        except Exception:  # a mistake of the daemon's, for which nobody is to wait for ever
            log.exception("loading the functions failed")
            failure = CommandError("internal error: valqd's log tells more").resp()
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            asyncio.get_running_loop().call_soon(done, failure)  # it may ask for another load

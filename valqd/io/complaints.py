"""Says what is wrong when it begins, and once a minute while it lasts: a log must tell, and must not fill the disk."""

from __future__ import annotations

import logging
import time

_AGAIN_S = 60.0

log = logging.getLogger(__name__)


class Complaints:
    """What was said, and when.  Bound: one entry for each ``what``, of which the code has a few."""

    def __init__(self) -> None:
        self._said_at: dict[str, float] = {}

    def say(self, what: str, why: object) -> None:
        """Log ``what: why``, unless ``what`` was logged within the last minute."""
        now = time.monotonic()
        if now - self._said_at.get(what, -_AGAIN_S) >= _AGAIN_S:
            self._said_at[what] = now
            log.warning("%s: %s", what, why)

    def over(self, what: str) -> None:
        """It is well again: say so if ``what`` was said; next time is the beginning of something new."""
        if self.forget(what):
            log.warning("%s: this is over", what)

    def forget(self, what: str) -> bool:
        """As ``over``, but the caller says so.  Whether ``what`` was said."""
        return self._said_at.pop(what, None) is not None

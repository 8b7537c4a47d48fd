"""Calls on the shared lane that merge with nothing: what one client, or the daemon itself, asks alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hiredis import HiredisError

from valqd.protocol.calls import Call, Route, error_line


class Listener:
    """The recipient of a call that pops nothing and that no client waits for: ``heard`` gets the answer's bytes."""

    gone = False

    def __init__(self, heard: Callable[[bytes], None] = lambda answer: None) -> None:
        self.last_seq = 0
        self.last_queue: bytes | None = None
        self.answer = heard

    def answer_fragments(self, fragments: list[bytes]) -> None:
        """Nothing is popped for it."""

    def undelivered(self, route: Route, data: bytes) -> bool:
        """Nothing is popped for it."""
        return True


class LoneCall(Call):
    """Any other command: an FCALL (or a handshake command) of its own, with its own way to read the reply."""

    __slots__ = ("request", "shape")

    def __init__(self, request: bytes, shape: Callable[[Any], bytes | None]) -> None:
        """``shape`` turns the reply into the answer's bytes (None: it has answered itself, or will)."""
        self.size = len(request)
        self.deals = []
        self.request = request
        self.shape = shape

    @property
    def is_function(self) -> bool:  # noqa: D102 - see Call
        return b"\r\nFCALL" in self.request[:20]

    def encode(self) -> list[bytes]:  # noqa: D102 - see Call
        return [self.request]

    def deliver(self, reply: Any) -> None:  # noqa: D102 - see Call
        data = self.shape(reply)
        if data is not None:
            self.deals[0][0].answer(data)

    def fail(self, error: bytes) -> None:  # noqa: D102 - see Call
        self.deliver(HiredisError(error[1:-2].decode("utf-8", "surrogateescape")))


class ProofCall(LoneCall):
    """AUTH or SELECT, to see whether the backend accepts it, and HELLO.  The answer is the first's error, or empty.

    Valkey before 9 leaves out the error of a refused AUTH while it has other replies to send.  HELLO's reply always
    comes, and is an array.
    """

    __slots__ = ("_answer",)

    has_several_replies = True

    def __init__(self, request: bytes) -> None:
        super().__init__(request, lambda reply: error_line(reply) if isinstance(reply, Exception) else b"")
        self._answer: Any = HiredisError("WRONGPASS invalid username-password pair or user is disabled.")

    def add(self, reply: Any) -> bool:  # noqa: D102 - see Call
        if type(reply) is list:
            return True
        self._answer = reply
        return False

    def deliver(self, reply: Any) -> None:  # noqa: D102 - see Call
        super().deliver(self._answer)

    def fail(self, error: bytes) -> None:  # noqa: D102 - see Call
        self.deals[0][0].answer(error)

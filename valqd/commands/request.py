"""What a parsed command asks of the backend: which function, on which queues, with which arguments.

This is the only link between the grammar and the daemon's core.  It knows the shape of a function call and of the
keys, and nothing of options or of what a function does.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

from valqd.lua import FUNCTION_PREFIX

#: More ids in one command are taken in steps.
MOST_IDS = 1000


class Merge(NamedTuple):
    """How a request joins one function call made for many requests on the same queue."""

    function: str  #: push_many, push_records, pop_many, ack_many, nack_many or extend_many
    fixed: tuple[bytes, ...]  #: arguments before the items; only requests that agree in them can be joined
    items: tuple[bytes, ...]  #: this request's own; for pop_many how often, and its spec


class Steps(Enum):
    """How a command that takes several calls, so that none holds Valkey for long, goes on."""

    TOKEN = auto()  #: each call returns how many, or names, and a token for the next in place of the last one in ARGV
    REPEATED = auto()  #: the same call, until it answers
    ARGS_ONCE = auto()  #: the first call does it; more of them without ``args`` follow until one answers
    IDS = auto()  #: MOST_IDS of the ids at the end of ``args`` at a time; counts are added up


class Request(NamedTuple):
    """One command, checked and rewritten.  A tuple because one is made for every command a client sends."""

    function: str  #: without prefix; empty for HELP, which the daemon answers itself
    queues: tuple[bytes, ...]  #: their keys are KEYS, in this order
    args: tuple[bytes, ...]  #: ARGV after mode, token and auto
    takes_auto: bool = False  #: ARGV has the defaults for creating a missing queue before ``args``
    steps: Steps | None = None  #: None: one call does it
    merge: Merge | None = None  #: None: is always a call of its own
    block_ms: int | None = None  #: how long to wait for a message; 0 for ever, None not at all
    fair: bool = False  #: the daemon begins with another of ``queues`` each time
    ids: int = 0  #: how many of ``args``, the last ones, are ids, of a command that may take them in steps

    def split_ids(self) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """``args`` before the ids, and these."""
        at = len(self.args) - self.ids
        return self.args[:at], self.args[at:]

    @property
    def wanted(self) -> int:
        """How many messages a POP or MPOP asks for."""
        return int(self.args[0] or 1) if self.function in ("pop", "mpop") else 0

    @property
    def is_lost_with_its_client(self) -> bool:
        """Whether what it takes cannot be given back when its client has left: POP or MPOP with NOACK."""
        return self.function in ("pop", "mpop") and b"N" in self.args[2]

    @classmethod
    def on_ids(
        cls, function: str, queue: bytes, fixed: tuple[bytes, ...], ids: tuple[bytes, ...], merged: str = ""
    ) -> Request:
        """A command that does the same to each of ``ids`` and answers how many; ``fixed`` comes before them in ARGV.

        ``merged``: the function that does it for many requests.
        """
        steps = Steps.IDS if len(ids) > MOST_IDS else None
        merge = Merge(merged, fixed, ids) if merged and steps is None else None
        return cls(function, (queue,), (*fixed, *ids), steps=steps, merge=merge, ids=len(ids))


def queue_key(name: bytes) -> bytes:
    """The key that every function on a queue is given; all others are derived from it."""
    return b"valq:{%b}:queue" % name


def packed(values: Sequence[bytes]) -> bytes:
    """At most 65,535 strings as one argument: an array in MessagePack."""
    strings = [b"\xdb%b%b" % (len(value).to_bytes(4, "big"), value) for value in values]
    return b"\xdc%b%b" % (len(strings).to_bytes(2, "big"), b"".join(strings))


def fcall(function: str, keys: Sequence[bytes], *args: bytes) -> list[bytes]:
    """The FCALL of a function, named without its prefix."""
    return [b"FCALL", f"{FUNCTION_PREFIX}{function}".encode(), b"%d" % len(keys), *keys, *args]


def function_call(request: Request, mode: bytes, auto: bytes, token: bytes = b"") -> list[bytes]:
    """The FCALL for ``request``.

    ``mode`` is n2, n3, e2 or e3 (native or encoded reply, protocol version); ``auto`` the defaults for creating a
    queue, or empty; ``token`` what the last step of a stepped call returned.
    """
    call = fcall(request.function, [queue_key(name) for name in request.queues], mode)
    if request.steps is Steps.TOKEN:
        call.append(token)
    if request.takes_auto:
        call.append(auto)
    call += request.args
    return call

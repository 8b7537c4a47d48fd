"""VALQ.CREATE: makes a queue."""

from __future__ import annotations

from valqd.commands.positionals import QUEUE_ARGUMENT
from valqd.commands.queue_options import BY_NAME, BY_POSITION, fields, named_queues
from valqd.commands.request import Request
from valqd.commands.spec import Arguments, Command, Option

_DEFAULTS = {"visibility_timeout": b"30000", "max_delivery_attempts": b"5", "retention_period": b"86400000"}


def _build(args: Arguments) -> Request:
    settings = _DEFAULTS | fields(args)
    pairs = [item for name, value in settings.items() if value for item in (name.encode(), value)]
    return Request("create", named_queues(args), (args.get("nx"), *pairs))


SPEC = Command(
    name="create",
    summary="Creates a queue.",
    arguments=(
        QUEUE_ARGUMENT,
        *BY_POSITION,
        Option("NX", doc="answer OK if the queue is there already, and leave it as it is"),
        *BY_NAME,
    ),
    build=_build,
    reply="OK.",
    complexity="O(1).",
    errors=(("QUEUEEXISTS", "a queue of that name is there already, and NX was not given"),),
    notes=(
        "Defaults, whatever the daemon's settings are: visibility_timeout 30 s, max_delivery_attempts 5, "
        "retention_period 86400 s. The three may be given by position or by name, each only once.",
        "With DLQ the user needs rights on both queues. On a cluster both must be in one hash slot.",
    ),
    example=(
        ("VALQ.CREATE orders 30 5", "OK"),
        ("VALQ.CREATE orders", "(error) QUEUEEXISTS queue 'orders' is already there"),
        ("VALQ.CREATE mails VT 60 BACKOFF EXP 1 300 JITTER 20 MAXLEN 100000", "OK"),
    ),
    flags=("write", "denyoom", "noscript", "fast"),
    key_flags=("RW", "insert"),
)

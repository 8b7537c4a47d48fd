"""The settings of a queue that CREATE and UPDATE share: their arguments, and the fields handed to the functions."""

from __future__ import annotations

from valqd.commands.spec import Arguments, OneOf, Option, OptionValue, Positional
from valqd.commands.values import (
    ATTEMPTS,
    LUA_INTEGER_MAX,
    MS,
    QUEUE,
    RETENTION,
    VISIBILITY,
    YEAR_S,
    integer,
    seconds,
    words,
)
from valqd.errors import CommandError, shown

#: The wait before a message that came back is handed out again.
_WAIT = seconds(0, YEAR_S)
_LIMIT = integer(0, LUA_INTEGER_MAX)

#: The numbers that may also be given by position, in this order.
BY_POSITION = (
    Positional("visibility_timeout", VISIBILITY, "how long a delivery's lease lasts", optional=True),
    Positional("max_delivery_attempts", ATTEMPTS, "how often a message is handed out at most", optional=True),
    Positional("retention_period", RETENTION, "how long dead letters are kept", optional=True),
)

BY_NAME: tuple[Option | OneOf, ...] = (
    Option(
        "VT",
        (OptionValue("seconds", VISIBILITY),),
        "visibility_timeout: how long a delivery's lease lasts",
        name="visibility_timeout",
    ),
    Option(
        "MAXATTEMPTS",
        (OptionValue("n", ATTEMPTS),),
        "max_delivery_attempts: how often a message is handed out at most",
        name="max_delivery_attempts",
    ),
    Option(
        "RETENTION",
        (OptionValue("seconds", RETENTION),),
        "retention_period: how long dead letters are kept, 0 for ever",
        name="retention_period",
    ),
    Option(
        "BACKOFF",
        (
            OptionValue("kind", words("FIXED", "LINEAR", "EXP")),
            OptionValue("base-s", _WAIT),
            OptionValue("cap-s", _WAIT),
        ),
        "the wait before a failed message (by NACK, or by a lease that ended) is ready again: base, base * attempts or "
        "base * 2^(attempts-1) seconds, but never more than cap, which is at least base; NONE: no wait",
        removable=True,
        nested=(
            Option(
                "JITTER",
                (OptionValue("percent", integer(0, 100)),),
                "each wait is made shorter by a random part of up to this percentage",
            ),
        ),
    ),
    Option(
        "MAXLEN",
        (OptionValue("n", _LIMIT),),
        "the most messages the queue holds, ready, delayed and in flight; 0 or NONE: no limit",
        name="max_length",
        removable=True,
    ),
    Option(
        "MAXBYTES",
        (OptionValue("n", _LIMIT),),
        "the most bytes of bodies the queue holds, the dead not counted; 0 or NONE: no limit. UPDATE answers when it "
        "has counted what is there, some 50,000 messages a second (inside MULTI it answers at once, and the sweeper "
        "counts); until then pushes are checked against what is counted so far",
        name="max_bytes",
        removable=True,
    ),
    Option(
        "OVERFLOW",
        (OptionValue("policy", words("REFUSE", "DROPHEAD")),),
        "at a limit: refuse the push with FULL (the default, also NONE), or delete the oldest ready messages, as many "
        "as must be (never what is in flight or delayed: if that alone fills the queue, it is FULL). After UPDATE has "
        "lowered a limit, the next push deletes 2,000, or as many as it brings, and the rest goes within seconds",
        removable=True,
    ),
    Option(
        "DLQ",
        (OptionValue("queue", QUEUE),),
        "the dead are pushed to this queue instead, and live there by its own visibility timeout and attempts. Headers "
        "valq-queue, valq-id, valq-attempts and valq-reason say where they come from and why; they replace earlier "
        "ones of these names. A chain of such queues must not lead back to this one. NONE: the dead stay in this "
        "queue's own DLQ",
        name="dead_letter_queue",
        removable=True,
    ),
    Option(
        "MAXLEASE",
        (OptionValue("seconds", seconds(1 * MS, YEAR_S, zero="0 for no limit")),),
        "the longest that EXTEND keeps one delivery; 0 or NONE: no limit. For deliveries under way when it is set, it "
        "may count from their first EXTEND",
        name="max_lease",
        removable=True,
    ),
)

_FIELDS = frozenset(setting.name for setting in BY_NAME)
#: Options whose 0 means that there is none.
_ZERO_IS_NONE = ("max_length", "max_bytes", "max_lease")


def fields(args: Arguments) -> dict[str, bytes]:
    """The settings given, by the functions' field names; durations in ms, empty for what is to be removed.

    Raises ``CommandError`` for a queue that would be its own dead letter queue, and a backoff whose cap is below its
    base.
    """
    given = {name: value for name, value in args.one.items() if name in _FIELDS}
    for name in _ZERO_IS_NONE:
        if given.get(name) == b"0":
            given[name] = b""
    queue = args.get("queue")
    if given.get("dead_letter_queue") == queue:
        raise CommandError(f"queue '{shown(queue)}' cannot be its own dead letter queue")
    backoff = args.every("backoff")
    if backoff:
        kind, base_ms, cap_ms = backoff
        if int(cap_ms) < int(base_ms):
            raise CommandError("BACKOFF cap-s must be at least base-s")
        given["backoff"] = b":".join([kind, base_ms, cap_ms, args.get("jitter", b"0")])
    elif "jitter" in args.one:
        raise CommandError("BACKOFF NONE and JITTER cannot be given together")
    return given


def named_queues(args: Arguments) -> tuple[bytes, ...]:
    """The queue, and its dead letter queue if one is named: Valkey's ACL must allow the user both."""
    other = args.get("dead_letter_queue")
    return (args.get("queue"), other) if other else (args.get("queue"),)

"""VALQ.NACK: gives messages back before their lease ends."""

from __future__ import annotations

from valqd.commands.positionals import QUEUE_ARGUMENT, RECEIPTS_ARGUMENT
from valqd.commands.request import Request
from valqd.commands.spec import Arguments, Command, OneOf, Option, OptionValue
from valqd.commands.values import DELAY, text
from valqd.errors import CommandError

MAX_REASON_BYTES = 64 * 1024
#: Of all messages that one command gives back: each has the reason for itself.
MAX_REASONS_BYTES = 64 << 20


def _build(args: Arguments) -> Request:
    reason, ids = args.get("reason"), args.every("id")
    if len(ids) * len(reason) > MAX_REASONS_BYTES:
        raise CommandError(f"REASON must be at most {MAX_REASONS_BYTES // len(ids)} bytes long for {len(ids)} messages")
    fixed = (args.get("kind", b"FAIL"), args.get("delay"), reason)
    return Request.on_ids("nack", args.get("queue"), fixed, ids, "nack_many")


SPEC = Command(
    name="nack",
    summary="Gives messages back: they are ready again, delayed, or dead.",
    arguments=(
        QUEUE_ARGUMENT,
        RECEIPTS_ARGUMENT,
        Option("DELAY", (OptionValue("seconds", DELAY),), "the wait, instead of the queue's backoff; 0: none"),
        OneOf(
            "kind",
            (
                Option("SILENT", doc="the attempt is given back; ready after the same wait (DELAY 0: at once)"),
                Option("FAIL", doc="the attempt counts (the default)"),
                Option("FATAL", doc="to the DLQ now, whatever attempts are left"),
            ),
        ),
        Option("REASON", (OptionValue("text", text(0, MAX_REASON_BYTES)),), "kept with the message as last_error"),
    ),
    build=_build,
    reply="Integer: how many were given back.",
    complexity="O(log N) for each id; more than 1,000 ids in steps, outside MULTI.",
    errors=(("NOQUEUE", "there is no such queue"),),
    notes=(
        "Messages that are not in flight, and receipts whose lease is over, are not counted. A message whose attempts "
        "are used up goes to the DLQ, or is gone if its TTL is over (FATAL: to the DLQ even then). A reason replaces "
        "the one before; FAIL and FATAL without a reason leave none. FATAL takes no DELAY.",
        "Each message has the reason for itself: 64 MiB in all, at most.",
    ),
    example=(("VALQ.NACK orders 3-1 DELAY 5 REASON timeout", "(integer) 1"),),
    flags=("write", "noscript", "fast"),
    key_flags=("RW", "update"),
    excludes=(("delay", "fatal"),),
)

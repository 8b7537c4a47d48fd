"""VALQ.POP: takes messages from a queue.  MPOP shares its options."""

from __future__ import annotations

from valqd.commands.positionals import QUEUE_ARGUMENT
from valqd.commands.request import Merge, Request
from valqd.commands.spec import Arguments, Command, OneOf, Option, OptionValue
from valqd.commands.values import BATCH, LEASE, LUA_INTEGER_MAX, integer

OPTIONS: tuple[Option | OneOf, ...] = (
    Option("COUNT", (OptionValue("n", BATCH),), "up to n messages, as an array of maps"),
    Option(
        "BLOCK",
        (OptionValue("ms", integer(0, LUA_INTEGER_MAX, unit=" ms")),),
        "wait for a message, at most this many milliseconds, 0 for ever",
    ),
    Option("VT", (OptionValue("seconds", LEASE),), "visibility timeout of this delivery"),
    Option("NOACK", doc="gone on delivery: at most once, nothing to acknowledge (VT changes nothing then)"),
    Option("WITHMETA", doc="adds enqueued_at, deadline (null with NOACK), priority, headers, age_ms, last_error"),
)

ERRORS = (("NOQUEUE", "there is no such queue, and auto_create is off"),)


def pop_arguments(args: Arguments) -> tuple[bytes, bytes, bytes]:
    """COUNT, VT in ms and flags as the pop functions take them, each empty if not given."""
    one = args.one
    flags = (b"N" if "noack" in one else b"") + (b"M" if "withmeta" in one else b"")
    return args.get("count"), args.get("vt"), flags


def block_ms(args: Arguments) -> int | None:
    """How long to wait: 0 for ever, None not at all."""
    block = args.one.get("block")
    return None if block is None else int(block)


def _build(args: Arguments) -> Request:
    given = pop_arguments(args)
    spec = b"%d,%b,%b,%b" % (args.resp, *given) if args.resp == 3 or any(given) else b""  # the plainest is shortest
    merge = Merge("pop_many", (), (b"1", spec))
    return Request("pop", (args.get("queue"),), given, takes_auto=True, merge=merge, block_ms=block_ms(args))


SPEC = Command(
    name="pop",
    summary="Takes the next message from a queue, for as long as its lease lasts.",
    arguments=(QUEUE_ARGUMENT, *OPTIONS),
    build=_build,
    reply=(
        "Map: id, body, attempts (1 on the first delivery), receipt (null with NOACK), and headers if the message has "
        "some; null if nothing is ready. With COUNT an array of 0 to n maps."
    ),
    complexity="O(log N) for each message.",
    errors=ERRORS,
    notes=(
        "Order is by priority, then by id. A missing queue answers null, unless auto_create is off.",
        "A blocked POP is woken by a push, by a delay that falls due and by a lease that ends. Those that wait on one "
        "queue are served first come first served, at whichever daemon they wait; but who asks at the very moment at "
        "which a message becomes ready may get it before those are woken that wait elsewhere. Inside MULTI it does "
        "not wait. When the daemon is stopped it answers null, whatever BLOCK is.",
        "VT may be as short as 0.001 s here and with PUSH; a queue's own is at least 1 s.",
        "With COUNT, a reply that has 64 MiB of bodies and headers takes no more messages, though some are ready. A "
        "header counts for 512 bytes more than it has.",
    ),
    example=(
        (
            "VALQ.POP orders",
            '1# "id" => "1"\n2# "body" => "hello"\n3# "attempts" => (integer) 1\n4# "receipt" => "1-1"',
        ),
        ("VALQ.POP orders BLOCK 100", "(nil)"),
    ),
    flags=("write", "noscript", "fast", "blocking"),
    key_flags=("RW", "access", "update"),
)

"""VALQ.PUSH: adds a message.  MPUSH shares its options."""

from __future__ import annotations

from valqd.commands.positionals import QUEUE_ARGUMENT
from valqd.commands.request import Merge, Request, packed
from valqd.commands.spec import Arguments, Command, OneOf, Option, OptionValue, Positional
from valqd.commands.values import ATTEMPTS, BODY, DELAY, LEASE, SPAN, UNIX_MS, integer, text
from valqd.errors import CommandError, shown

MAX_PRIORITY = 31
MAX_HEADERS = 128
MAX_HEADER_FIELD_BYTES = 256
#: Of MPUSH, those of all its messages together, and their bytes: each message has them for itself.
MAX_HEADERS_IN_ALL, MAX_HEADER_BYTES = 1_000_000, 64 << 20
MAX_DEDUP_KEY_BYTES = 1024
_DEFAULT_DEDUP_WINDOW_MS = b"300000"
#: Larger headers are not packed into one argument: the backend might not take it.
_MAX_MERGED_HEADER_BYTES = 16 * 1024

OPTIONS: tuple[Option | OneOf, ...] = (
    OneOf(
        "due",
        (
            Option("DELAY", (OptionValue("seconds", DELAY),), "not delivered before this time has passed"),
            Option(
                "AT",
                (OptionValue("unix-ms", UNIX_MS),),
                "not delivered before this time (ms, not seconds); in the past: at once",
            ),
        ),
    ),
    Option("VT", (OptionValue("seconds", LEASE),), "visibility timeout of this message, instead of the queue's"),
    Option("TTL", (OptionValue("seconds", SPAN),), "not delivered after this time: it expires, and is counted"),
    Option(
        "MAXATTEMPTS",
        (OptionValue("n", ATTEMPTS),),
        "delivered at most this often, instead of the queue's number",
        name="max_attempts",
    ),
    Option("PRIORITY", (OptionValue("n", integer(0, MAX_PRIORITY)),), "larger is delivered first; default 0"),
    Option(
        "DEDUP",
        (OptionValue("key", text(1, MAX_DEDUP_KEY_BYTES)),),
        "while this key is held, nothing is added and the id of its first push is answered",
        nested=(
            OneOf(
                "held",
                (
                    Option(
                        "WINDOW",
                        (OptionValue("seconds", SPAN),),
                        "hold it for this time from the first push, even if that is done by then; default 300",
                    ),
                    Option(
                        "UNTILDONE",
                        doc="hold it until that message is dead, or gone (acked, expired, cancelled, removed); REDRIVE "
                        "does not bring the hold back",
                    ),
                ),
            ),
        ),
    ),
    Option(
        "HEADERS",
        (OptionValue("field", text(1, MAX_HEADER_FIELD_BYTES)), OptionValue("value", BODY)),
        "fields that travel with the message, each field once",
        most=MAX_HEADERS,
    ),
)

ERRORS = (
    ("NOQUEUE", "there is no such queue, and auto_create is off"),
    ("FULL", "the queue is at a limit (REFUSE), or too little of it is ready to be dropped (DROPHEAD)"),
    ("PAUSED", "the queue is paused IN"),
)

#: What is handed to the functions under its own name, as it was parsed.
_PLAIN_OPTIONS = ("delay", "at", "vt", "ttl", "max_attempts", "priority", "dedup")
#: Values that say no more than the default does.
_DEFAULT_VALUES = {"delay": b"0", "priority": b"0"}


def push_request(args: Arguments, bodies: tuple[bytes, ...], reply_many: bytes) -> Request:
    """The request of PUSH and MPUSH.  Raises ``CommandError`` for a header field given twice, and too many headers."""
    queue = args.one["queue"]
    pairs = _pairs(args)
    headers = args.every("headers")
    fields = headers[::2]
    if len(set(fields)) < len(fields):
        twice = next(field for field in fields if fields.count(field) > 1)
        raise CommandError(f"header '{shown(twice)}' is given twice")
    header_bytes = sum(map(len, headers))
    for size, most, unit in (
        (len(fields), MAX_HEADERS_IN_ALL, "headers"),
        (header_bytes, MAX_HEADER_BYTES, "bytes of headers"),
    ):
        if len(bodies) > 1 and len(bodies) * size > most:
            raise CommandError(f"all messages may have {most} {unit} together, not {len(bodies)} times {size}")
    options = (b"%d" % (len(pairs) // 2), *pairs, b"%d" % len(fields), *headers)
    merge = None
    if not (reply_many or pairs or headers):
        merge = Merge("push_many", (), bodies)
    elif not reply_many and header_bytes <= _MAX_MERGED_HEADER_BYTES:
        merge = Merge("push_records", (), (packed(options), *bodies))
    return Request("push", (queue,), (reply_many, *options, *bodies), takes_auto=True, merge=merge)


def _pairs(args: Arguments) -> list[bytes]:
    pairs: list[bytes] = []
    for name in _PLAIN_OPTIONS:
        value = args.one.get(name)
        if value is not None and value != _DEFAULT_VALUES.get(name):
            pairs += (name.encode(), value)
    if "dedup" in args.one:
        if "untildone" in args.one:
            pairs += (b"dedup_until_done", b"1")
        else:
            pairs += (b"dedup_window", args.get("window", _DEFAULT_DEDUP_WINDOW_MS))
    return pairs


def _build(args: Arguments) -> Request:
    return push_request(args, (args.one["body"],), b"")


SPEC = Command(
    name="push",
    summary="Adds a message to a queue.",
    arguments=(
        QUEUE_ARGUMENT,
        Positional("body", BODY, "the message"),
        Positional("delay", DELAY, "not delivered before so many seconds have passed", optional=True),
        *OPTIONS,
    ),
    build=_build,
    reply="Bulk string: the message's id, a decimal that counts up by 1 in each queue.",
    complexity="O(1), O(log N) with options.",
    errors=ERRORS,
    notes=("A missing queue is created with the daemon's defaults, unless auto_create is off.",),
    example=(
        ("VALQ.PUSH orders hello", '"1"'),
        ("VALQ.PUSH orders later 0.25", '"2"'),
        ("VALQ.PUSH orders urgent PRIORITY 9 HEADERS 1 trace 4bf92f", '"3"'),
    ),
    flags=("write", "denyoom", "noscript", "fast"),
    key_flags=("RW", "insert"),
    excludes=(("delay", "at"),),
)

"""Types of argument values: what is accepted, in which range, and the canonical bytes that a function is given.

A type's ``parse`` takes the raw argument, the label that an error names it by, and ``max_body_bytes`` (of use to BODY
alone); it returns the canonical bytes or raises CommandError.  Numbers are decimal digits only: no sign, exponent,
spaces, leading zeros, "inf" or "nan".  Nothing here goes through a float, so that the whole range of a u64 is exact.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from valqd.errors import CommandError, shown

U64_MAX = 2**64 - 1
#: The largest integer up to which Lua's numbers are exact.
LUA_INTEGER_MAX = 2**53 - 1
MAX_VISIBILITY_S = 43_200
YEAR_S = 31_536_000

MS = 1000  # ms in a second

#: Raw argument, label and ``max_body_bytes``.
Parse = Callable[[bytes, str, int], bytes]


@dataclass(frozen=True, slots=True)
class ValueType:
    """``docs_type`` is the argument type of COMMAND DOCS; ``range`` a phrase such as "1 to 43200 seconds"."""

    docs_type: str
    range: str
    parse: Parse
    words: tuple[str, ...] = ()  #: all that is accepted, where that is a few words


_INTEGER = re.compile(rb"(?:0|[1-9][0-9]{0,19})\Z").match
_SECONDS = re.compile(rb"(0|[1-9][0-9]{0,19})(?:\.([0-9]{1,30}))?\Z").match
#: An id or a receipt, as a pattern.
ID_PATTERN = rb"[1-9][0-9]{0,18}(?:-[1-9][0-9]{0,9})?"
_ID = re.compile(ID_PATTERN + rb"\Z").match
_QUEUE = re.compile(rb"[^\x00-\x20\x7f{}]{1,255}\Z").match


def _to_ms(raw: bytes) -> tuple[int, int] | None:
    """Decimal seconds in ms, rounded down and rounded up; None if malformed."""
    match = _SECONDS(raw)
    if match is None:
        return None
    whole, fraction = match.groups()
    down = int(whole) * MS
    if not fraction:
        return down, down
    digits = fraction.ljust(3, b"0")
    down += int(digits[:3])
    return down, down + (digits[3:].strip(b"0") != b"")


def _number(ms: int) -> str:
    return f"{ms // MS}" if ms % MS == 0 else f"{ms / MS:g}"


def seconds(low_ms: int, high_s: int, zero: str = "") -> ValueType:
    """A duration in decimal seconds, handed on in ms, of which a part counts as a whole one: nothing is due too early.

    ``zero`` says what 0 means where it is taken besides the range (for "no limit"), as in "0 for ever".
    """
    high_ms = high_s * MS
    phrase = f"{_number(low_ms)} to {high_s} seconds" + (f", or {zero}" if zero else "")

    def parse(raw: bytes, label: str, max_body_bytes: int) -> bytes:
        down, up = _to_ms(raw) or (-1, -1)
        if not (low_ms <= down and up <= high_ms) and not (zero and up == 0):
            raise CommandError(f"{label} must be {phrase}, not '{shown(raw)}'")
        return b"%d" % up

    return ValueType("double", phrase, parse)


def integer(low: int, high: int, docs_type: str = "integer", unit: str = "") -> ValueType:
    """A whole number from ``low`` to ``high``, both included."""
    phrase = f"an integer from {low} to {high}{unit}"

    def parse(raw: bytes, label: str, max_body_bytes: int) -> bytes:
        if _INTEGER(raw) is None or not low <= int(raw) <= high:
            raise CommandError(f"{label} must be {phrase}, not '{shown(raw)}'")
        return raw

    return ValueType(docs_type, phrase, parse)


def text(low: int, high: int) -> ValueType:
    """``low`` to ``high`` arbitrary bytes."""
    phrase = f"{low} to {high} bytes"

    def parse(raw: bytes, label: str, max_body_bytes: int) -> bytes:
        if not low <= len(raw) <= high:
            raise CommandError(f"{label} must be {phrase} long")
        return raw

    return ValueType("string", phrase + " long", parse)


def _id(phrase: str) -> ValueType:
    """A message's id, or a receipt."""

    def parse(raw: bytes, label: str, max_body_bytes: int) -> bytes:
        if _ID(raw) is None:
            raise CommandError(f"invalid id '{shown(raw)}': must be {phrase}")
        return raw

    return ValueType("string", phrase, parse)


def words(*accepted: str) -> ValueType:
    """One of a few words in any letter case, handed on in upper case."""
    phrase = ", ".join(accepted[:-1]) + " or " + accepted[-1]
    known = {word.encode() for word in accepted}

    def parse(raw: bytes, label: str, max_body_bytes: int) -> bytes:
        word = raw.upper()
        if word not in known:
            raise CommandError(f"{label} must be {phrase}, not '{shown(raw)}'")
        return word

    return ValueType("string", phrase, parse, accepted)


def _parse_queue(raw: bytes, label: str, max_body_bytes: int) -> bytes:
    if _QUEUE(raw) is None or not (raw.isascii() or _is_plain_unicode(raw)):
        raise CommandError(f"invalid queue name '{shown(raw)}': must be {QUEUE.range}")
    return raw


def _is_plain_unicode(raw: bytes) -> bool:
    """Whether ``raw`` has no white space or control characters beyond ASCII; bytes that are not UTF-8 have none."""
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        return True
    return not any(char.isspace() or unicodedata.category(char) in ("Cc", "Zs", "Zl", "Zp") for char in name)


def _parse_cursor(raw: bytes, label: str, max_body_bytes: int) -> bytes:
    if _INTEGER(raw) is None or int(raw) > U64_MAX:
        raise CommandError(f"invalid cursor '{shown(raw)}': must be {CURSOR.range}")
    return raw


def _parse_body(raw: bytes, label: str, max_body_bytes: int) -> bytes:
    if len(raw) > max_body_bytes:
        raise CommandError(f"{label} is larger than max_body_bytes ({max_body_bytes})")
    return raw


def _parse_pattern(raw: bytes, label: str, max_body_bytes: int) -> bytes:
    """What takes too long to be looked for, the functions refuse (see lib/glob.lua)."""
    if not 1 <= len(raw) <= 1024:
        raise CommandError(f"{label} must be 1 to 1024 bytes long")
    return raw


QUEUE = ValueType("key", "1 to 255 bytes without braces, white space or control characters", _parse_queue)
ID = _id("a message id (7) or a receipt (7-1)")
MESSAGE_ID = _id("a message id (7)")  #: of what is in no delivery: a receipt finds nothing
CURSOR = ValueType("integer", "0, or the cursor of the last reply", _parse_cursor)
BODY = ValueType("string", "any bytes, at most max_body_bytes", _parse_body)
PATTERN = ValueType("pattern", "1 to 1024 bytes long", _parse_pattern)
COMMAND_NAME = text(1, 64)

VISIBILITY = seconds(1 * MS, MAX_VISIBILITY_S)  #: of a queue, and of EXTEND
LEASE = seconds(1, MAX_VISIBILITY_S)  #: of one message or one POP: may be shorter than a queue's
DELAY = seconds(0, U64_MAX)
SPAN = seconds(1, U64_MAX)  #: a time to live or a window: nothing can last 0 s
RETENTION = seconds(60 * MS, YEAR_S, zero="0 for ever")
UNIX_MS = integer(0, U64_MAX, "unix-time")
ATTEMPTS = integer(1, 1000)
PAGE = integer(1, 1000)  #: COUNT of messages with all that is known of them: about 15 us of Valkey's time each
BATCH = integer(1, 10_000)  #: COUNT: bounds what one call reads and what its reply holds

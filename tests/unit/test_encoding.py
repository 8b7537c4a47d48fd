"""Reply encoding: every kind of value in both protocols."""

from __future__ import annotations

from typing import Any

import pytest

from valqd.commands.reply_values import Set, Status
from valqd.errors import BackendDown, CommandError
from valqd.protocol.encoding import encode

NOT_SENT = b"-NOBACKEND the backend cannot be reached: the command was not sent, try again\r\n"
CASES: list[tuple[Any, bytes, bytes]] = [
    (None, b"$-1\r\n", b"_\r\n"),
    (b"", b"$0\r\n\r\n", b"$0\r\n\r\n"),
    (b"a\r\n\x00", b"$4\r\na\r\n\x00\r\n", b"$4\r\na\r\n\x00\r\n"),
    ("schön", b"$6\r\nsch\xc3\xb6n\r\n", b"$6\r\nsch\xc3\xb6n\r\n"),
    (Status("OK"), b"+OK\r\n", b"+OK\r\n"),
    (0, b":0\r\n", b":0\r\n"),
    (-(2**63), b":-9223372036854775808\r\n", b":-9223372036854775808\r\n"),
    ([], b"*0\r\n", b"*0\r\n"),
    ([1, [b"x"], None], b"*3\r\n:1\r\n*1\r\n$1\r\nx\r\n$-1\r\n", b"*3\r\n:1\r\n*1\r\n$1\r\nx\r\n_\r\n"),
    ((1, 2), b"*2\r\n:1\r\n:2\r\n", b"*2\r\n:1\r\n:2\r\n"),
    ({b"a": 1, b"b": {}}, b"*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n*0\r\n", b"%2\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n%0\r\n"),
    ({"a": 1}, b"*2\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n:1\r\n"),
    (Set([Status("x"), Status("y")]), b"*2\r\n+x\r\n+y\r\n", b"~2\r\n+x\r\n+y\r\n"),
    (Set(), b"*0\r\n", b"~0\r\n"),
    (CommandError("no such thing"), b"-ERR no such thing\r\n", b"-ERR no such thing\r\n"),
    (BackendDown(), NOT_SENT, NOT_SENT),
]


@pytest.mark.parametrize(("value", "resp2", "resp3"), CASES)
def test_value_is_encoded_for_the_protocol(value: Any, resp2: bytes, resp3: bytes) -> None:
    assert encode(value, 2) == resp2
    assert encode(value, 3) == resp3


def test_line_break_cannot_end_an_error_early() -> None:
    assert CommandError("a\r\n+OK\r\nb").resp() == b"-ERR a  +OK  b\r\n"


def test_an_error_that_repeats_the_backends_has_its_bytes():
    assert CommandError(b"user '\xff'".decode(errors="surrogateescape")).resp() == b"-ERR user '\xff'\r\n"


def test_line_break_in_a_simple_string_is_refused() -> None:
    with pytest.raises(ValueError, match="line break"):
        encode(Status("a\r\nb"), 2)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError):
        encode(object(), 2)  # type: ignore[arg-type]

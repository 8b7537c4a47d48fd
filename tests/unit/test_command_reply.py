"""COMMAND LIST with a pattern lists those of our commands that Valkey would find by it."""

import pytest

from valqd.protocol.command_reply import complete


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("valq.p*", "valq.pause valq.peek valq.pop valq.purge valq.push"),
        ("VALQ.P?P", "valq.pop"),
        ("valq.[^a-l]op", "valq.pop"),
        ("valq.[^m]p*", "valq.update"),
        ("valq.[!p]op", "valq.pop"),
        ("valq\\.[lp][io][ps]*", "valq.list valq.pop"),
        ("valq.[s-p]op", "valq.pop"),
        ("valq.po[p", "valq.pop"),
        ("*" * 300 + "x", ""),
        ("valq.pop" + "x" * 1_000_000, ""),
        ("*?" * 100, ""),
    ],
)  # fmt: skip
def test_patterns_are_valkeys(pattern, found):
    reply = complete([b"COMMAND", b"LIST", b"FILTERBY", b"PATTERN", pattern.encode()], b"*0\r\n", 2)
    assert sorted(reply.split(b"\r\n")[2::2]) == sorted(found.encode().split())

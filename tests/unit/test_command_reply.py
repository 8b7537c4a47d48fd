"""COMMAND LIST with a filter lists those of our commands that Valkey would find by it."""

import pytest

from valqd.protocol.command_reply import complete
from valqd.protocol.replies import split_elements


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


def test_commands_of_a_category():
    reply = complete([b"COMMAND", b"LIST", b"filterby", b"aclcat", b"READ"], b"*1\r\n$3\r\nget\r\n", 2)
    names = reply.split(b"\r\n")[2::2]
    assert {b"get", b"valq.list", b"valq|list"} <= set(names)
    assert b"valq.push" not in names
    assert reply.startswith(b"*%d\r\n" % len(names))


@pytest.mark.parametrize("sub", [b"COUNT", b"LIST", b"INFO", b"DOCS"])
def test_errors_come_back_as_they_are(sub):
    error = b"-ERR unknown subcommand or wrong number of arguments\r\n"
    assert complete([b"COMMAND", sub, b"x"], error, 2) == error


@pytest.mark.parametrize("resp", [2, 3])
def test_names_that_come_again_and_again_do_not_multiply_the_reply(resp):
    names = [b"valq", b"VALQ", b"valq|push"] * 1000
    once = complete([b"COMMAND", b"DOCS", b"valq", b"valq|push"], b"*0\r\n" if resp == 2 else b"%0\r\n", resp)
    assert complete([b"COMMAND", b"DOCS", *names], b"*0\r\n" if resp == 2 else b"%0\r\n", resp) == once
    nulls = [b"*-1\r\n" if resp == 2 else b"_\r\n"] * len(names)
    rows = split_elements(complete([b"COMMAND", b"INFO", *names], b"*%d\r\n%b" % (len(names), b"".join(nulls)), resp))
    assert len(rows) == len(names)
    assert sum(row not in nulls[:1] for row in rows) == 64

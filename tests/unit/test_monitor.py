"""A MONITOR through the daemon shows what clients send, and nothing of what daemons do for themselves."""

import sys

import pytest

from valqd.protocol.monitor import MonitorFilter
from valqd.protocol.replies import ReplyScanner
from valqd.protocol.requests import encode_own

SHOWN = [
    b"+OK\r\n",
    b'+1.5 [0 127.0.0.1:1] "SET" "k" "sELECT"\r\n',
    b'+1.6 [9 unix:/tmp/a.sock] "set" "k" "%b"\r\n' % (b"x" * 1000),
    b'+1.7 [0 127.0.0.1:2] "FCALL" "valq1_push_many" "1"\r\n',
    b'+1.8 [0 lua] "TIME"\r\n',
    b"$6\r\nsELECT\r\n",
    b'$46\r\na\n+1700000000.1 [0 127.0.0.1:5] "sELECT" "0"\nb\r\n',
    b'*2\r\n+1.1 [0 127.0.0.1:3] "sELECT" "9"\r\n:1\r\n',
]
OWN = [
    b'+1.1 [0 127.0.0.1:3] "%b" "9"\r\n' % encode_own([b"SELECT"]).split()[2],
    b'+1.2 [0 unix:/tmp/a folder/valkey.sock] "fCALL_RO" "valq1_due" "0"\r\n',
    b'+1.3 [0 lua] "TIME"\r\n',
    b'+1.4 [0 lua] "%b"\r\n' % (b"x" * 1000),
]


def test_lines_are_taken_out_wherever_they_are_cut():
    stream = b"".join([*OWN[:1], *SHOWN[:2], *OWN, *SHOWN[2:], *OWN])
    for step in (1, 7, 64, 300, len(stream)):
        monitor = MonitorFilter(ReplyScanner())
        shown = b"".join(monitor.feed(stream[at : at + step]) for at in range(0, len(stream), step))
        assert shown + monitor.end() == b"".join(SHOWN)


def test_a_long_line_is_not_kept():
    monitor = MonitorFilter(ReplyScanner())
    head = b'+1.5 [0 127.0.0.1:1] "SET" "k" "' + b"x" * 1000
    assert monitor.feed(head) == head
    assert monitor.feed(b"x" * 1000) == b"x" * 1000


def test_what_is_kept_comes_at_the_end():
    monitor = MonitorFilter(ReplyScanner())
    assert monitor.feed(b"+RES") == b""
    assert monitor.end() == b"+RES"


@pytest.mark.parametrize("step", [1, 3, 100])
@pytest.mark.parametrize("refused", [True, False])
def test_a_refusal_is_told_behind_messages_that_come_first(step, refused):
    scanner = ReplyScanner()
    scanner.feed(b">3\r\n$7\r\nmess")
    monitor = MonitorFilter(scanner)
    stream = b"age\r\n$1\r\nc\r\n$4\r\n-ERR\r\n>1\r\n-no\r\n" + (
        b"-NOPERM\r\n+OK\r\n" if refused else b"+OK\r\n-ERR\r\n"
    )
    shown = b"".join(monitor.feed(stream[at : at + step]) for at in range(0, len(stream), step))
    assert (shown + monitor.end(), monitor.was_refused) == (stream, refused)


def test_a_line_of_any_length_is_scanned_without_being_kept():
    scanner = ReplyScanner()
    for _ in range(1000):
        assert scanner.feed(b'+1.5 [0 127.0.0.1:1] "SET"' + b"x" * 10_000) == []
    assert sys.getsizeof(scanner._line) < 200
    assert [end.offset for end in scanner.feed(b"x\r\n$3\r\nabc\r\n")] == [3, 12]

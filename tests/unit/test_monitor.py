"""A MONITOR through the daemon shows what clients send, and nothing of what daemons do for themselves."""

from valqd.protocol.monitor import MonitorFilter, encode_own

SHOWN = [
    b"+OK\r\n",
    b'+1.5 [0 127.0.0.1:1] "SET" "k" "sELECT"\r\n',
    b'+1.6 [9 unix:/tmp/a.sock] "set" "k" "%b"\r\n' % (b"x" * 1000),
    b'+1.7 [0 127.0.0.1:2] "FCALL" "valq1_push_many" "1"\r\n',
    b'+1.8 [0 lua] "TIME"\r\n',
    b"$6\r\nsELECT\r\n",
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
        monitor = MonitorFilter()
        shown = b"".join(monitor.feed(stream[at : at + step]) for at in range(0, len(stream), step))
        assert shown + monitor.end() == b"".join(SHOWN)


def test_a_long_line_is_not_kept():
    monitor = MonitorFilter()
    head = b'+1.5 [0 127.0.0.1:1] "SET" "k" "' + b"x" * 1000
    assert monitor.feed(head) == head
    assert monitor.feed(b"x" * 1000) == b"x" * 1000


def test_what_is_kept_comes_at_the_end():
    monitor = MonitorFilter()
    assert monitor.feed(b"+RES") == b""
    assert monitor.end() == b"+RES"

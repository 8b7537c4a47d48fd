"""The backend's URL."""

import socket
from types import SimpleNamespace

import pytest

from valqd.errors import Refused, SettingError
from valqd.io.backend import Backend, ReplyProtocol
from valqd.protocol.calls import error_line


@pytest.mark.parametrize(
    ("url", "backend"),
    [
        ("valkey://h", Backend("h", 6379)),
        ("redis://h:1/3", Backend("h", 1, db=3)),
        ("valkeys://[::1]:2", Backend("::1", 2, tls=True)),
        ("valkey://:p%40@h", Backend("h", 6379, user=b"", password=b"p@")),
        ("valkey://u:%FF@h", Backend("h", 6379, user=b"u", password=b"\xff")),
        ("valkey://u:@h", Backend("h", 6379, user=b"u", password=b"")),
        ("unix:s", Backend(path="s")),
        ("unix:///run/v.sock", Backend(path="/run/v.sock")),
        ("unix:///run/a?b", Backend(path="/run/a?b")),
        ("unix:///run/valkey@6379/s", Backend(path="/run/valkey@6379/s")),
        ("unix:@abstract", Backend(path="@abstract")),
        ("unix://u:p%2F@/run/v.sock?db=4", Backend(path="/run/v.sock", user=b"u", password=b"p/", db=4)),
    ],
)
def test_url(url, backend):
    assert Backend.from_url(url) == backend


@pytest.mark.parametrize(
    "url",
    [
        "unix://u:pa/ss@/s",
        "unix://u:p@ss@/s",
        "unix://u@/s",
        "h",
        "http://h",
        "valkey://h:0",
        "valkey://h:x",
        "valkey://u@h",
        "valkey://h/x",
        "valkey://h/" + "9" * 5000,
        "valkey://h?db=1",
        "unix:",
    ],
)
def test_what_is_no_url_is_refused_and_not_repeated(url):
    with pytest.raises(SettingError) as refusal:
        Backend.from_url(url)
    assert "backend" in str(refusal.value)
    assert len(url) < 6 or url not in str(refusal.value)


class Replies(ReplyProtocol):
    def __init__(self):
        super().__init__()
        self.got = []

    def reply_received(self, reply):
        self.got.append(reply)


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_errors_keep_bytes_that_are_no_text_wherever_they_are_cut(size):
    errors = [b"-NOQUEUE no such queue 'q\xfe'\r\n", b"-NOPERM user us\xffer\r\n"]
    stream = b"+OK\r\n" + errors[0] + b"$7\r\nab\r\n-\xfe\r\r\n" + errors[1] * 2
    protocol = Replies()
    for at in range(0, len(stream), size):
        protocol.data_received(stream[at : at + size])
    assert len(protocol.got) == 5
    assert [error_line(protocol.got[place]) for place in (1, 3, 4)] == [errors[0], errors[1], errors[1]]
    assert Refused(errors[0]).resp() == errors[0]


def test_errors_that_are_the_same_but_for_bytes_that_are_no_text_are_told_apart():
    errors = [b"-NOQUEUE no such queue '%c'\r\n" % byte for byte in range(0x80, 0x100)]
    stream = b"+OK\r\n" + b"".join(errors) + b"$9\r\n-NOQUEUE\n\r\n" + b"".join(errors[::-1])
    protocol = Replies()
    for at in range(0, len(stream), 1000):
        protocol.data_received(stream[at : at + 1000])
    del protocol.got[1 + len(errors)], protocol.got[0]
    assert list(map(error_line, protocol.got)) == errors + errors[::-1]


def test_a_connection_that_is_reset_leaves_no_port_behind():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        protocol = Replies()
        protocol.connection_made(SimpleNamespace(get_extra_info=lambda name: ours, abort=ours.close))
        protocol.reset()
        with theirs, pytest.raises(ConnectionResetError):
            theirs.recv(1)

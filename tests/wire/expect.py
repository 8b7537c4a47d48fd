"""What tests expect of replies, in either protocol version, and the states they bring about for that."""

import contextlib
import signal

import hiredis

from tests.servers import Connection, as_map, until

#: Within this time even an idle daemon asks Valkey something for itself, and forgets whether clients need a password.
SPEAKS_S = 0.6


def exact(connection, expected: bytes, *args):
    """The reply to ``args`` is these very bytes, and nothing follows it."""
    connection.send(*args)
    assert connection.read_raw(len(expected)) == expected, args
    nothing_more(connection)


def nothing_more(connection):
    """No reply is under way that was not read."""
    connection.send("PING", "the-next-reply")
    assert connection.read_raw(21) == b"$14\r\nthe-next-reply\r\n"


def refused(reply, start: str, *words: str):
    """``reply`` is an error that starts with ``start`` and contains each of ``words``."""
    assert isinstance(reply, hiredis.ReplyError), reply
    text = str(reply)
    assert text.split(" ")[0] == start.split(" ")[0], text
    assert text.startswith(start), text
    for word in words:
        assert word in text, (word, text)


def message(reply) -> dict | None:
    """A popped message as a map with text keys, or None."""
    assert not isinstance(reply, hiredis.ReplyError), reply
    return None if reply is None else {key.decode(): value for key, value in as_map(reply).items()}


def messages(reply) -> list[dict]:
    """An array of messages."""
    assert isinstance(reply, list), reply
    return [message(item) for item in reply]


def bodies(reply) -> list[bytes]:
    """The bodies of an array of messages."""
    return [item["body"] for item in messages(reply)]


def pop(connection, queue, *options) -> dict | None:
    """One POP."""
    return message(connection.call("VALQ.POP", queue, *options))


def drain(connection, queue) -> list[bytes]:
    """The bodies of all that is ready, in order."""
    return bodies(connection.call("VALQ.POP", queue, "COUNT", 1000))


def info(connection, queue) -> dict:
    """INFO with text keys."""
    return message(connection.call("VALQ.INFO", queue))


def show(connection, queue, id_) -> dict:
    """SHOW with text keys."""
    return message(connection.call("VALQ.SHOW", queue, id_))


def counts(connection, queue) -> dict:
    """How many messages are in each state."""
    fields = info(connection, queue)
    return {
        state: fields[f"{state}_msgs"] for state in ("ready", "inflight", "delayed", "dlq") if fields[f"{state}_msgs"]
    }


def blocked(watching, queue, count=1):
    """Wait until so many clients, no more and no less, are registered as blocked on the queue."""
    watching.call("VALQ.CREATE", queue, "NX")
    until(lambda: info(watching, queue)["blocked_clients"] == count, 5, "blocked")


def noticed(beside):
    """The daemon has been around its loop: it has seen whatever was sent, or closed, before."""
    for _ in range(10):
        assert isinstance(beside.call("VALQ.HELP"), list)  # which it answers by itself


def until_pop(connection, queue, timeout_s=3.0) -> dict:
    """Pop until there is something."""
    return until(lambda: pop(connection, queue), timeout_s, f"a message in {queue}")


def backend_ms(direct) -> int:
    """The Valkey's clock, unix ms."""
    seconds, micros = direct.call("TIME")
    return int(seconds) * 1000 + int(micros) // 1000


@contextlib.contextmanager
def parked(port, *commands, resp=2, count=1):
    """Clients that wait, registered as blocked on the queue named first in what they sent."""
    queue = commands[0]
    with contextlib.ExitStack() as stack:
        watching = stack.enter_context(Connection(port))
        waiters = [stack.enter_context(Connection(port, resp)) for _ in range(count)]
        for waiter in waiters:
            waiter.send(*commands[1:])
        blocked(watching, queue, count)
        yield waiters


@contextlib.contextmanager
def stopped(server):
    """The server takes requests, but answers none."""
    server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal(signal.SIGCONT)

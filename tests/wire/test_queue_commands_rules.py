"""Section 1 of the contract: spellings, errors, reply types, binary bodies, names, durations, databases."""

import pytest

from tests.servers import Connection, as_map, request
from tests.wire.expect import backend_ms, bodies, counts, exact, info, pop, refused, show

#: Every command with arguments that reach a missing queue, and what it answers there.
NEEDS_QUEUE = [
    ("UPDATE", "q", "VT", "9"),
    ("DELETE", "q"),
    ("INFO", "q"),
    ("PURGE", "q"),
    ("ACK", "q", "1"),
    ("EXTEND", "q", "1", "5"),
    ("NACK", "q", "1"),
    ("PEEK", "q"),
    ("SHOW", "q", "1"),
    ("SCAN", "q", "0"),
    ("DEL", "q", "1"),
    ("CANCEL", "q", "1"),
    ("REDRIVE", "q"),
    ("PAUSE", "q", "IN"),
]

ARITY = [
    ("CREATE",),
    ("UPDATE",),
    ("UPDATE", "q"),
    ("UPDATE", "q", "30"),
    ("UPDATE", "q", "30", "5"),
    ("DELETE",),
    ("DELETE", "q", "r"),
    ("INFO",),
    ("INFO", "q", "r"),
    ("PUSH",),
    ("PUSH", "q"),
    ("POP",),
    ("ACK",),
    ("ACK", "q"),
    ("EXTEND", "q"),
    ("EXTEND", "q", "1"),
    ("EXTEND", "q", "1", "5", "6"),
    ("PURGE",),
    ("NACK", "q"),
    ("MPUSH", "q", "1"),
    ("MPOP",),
    ("MPOP", "1"),
    ("PEEK",),
    ("SHOW", "q"),
    ("SHOW", "q", "1", "2"),
    ("SCAN", "q"),
    ("DEL", "q"),
    ("CANCEL", "q"),
    ("REDRIVE",),
    ("PAUSE", "q"),
    ("HELP", "push", "pop"),
]


#: The grammar, of which tests/unit tells more, is that of both protocol versions.
ONE_VERSION = pytest.mark.parametrize("resp", [2], ids=["resp2"])


def name_of(case):
    return " ".join(case)


@pytest.mark.parametrize("write", ["VALQ.{}", "VALQ {}", "valq.{}", "valq {}", "VaLq.{}", "vALQ {}"])
def test_both_spellings_in_any_case_are_one_command(client, queue, write):
    def call(command, *args):
        word = command.lower() if write.islower() else command
        return client.call(*write.format(word).split(" "), queue, *args)

    assert call("CREATE") == b"OK"
    assert call("PUSH", "one") == b"1"
    assert call("Push", "two", "0") == b"2"
    receipt = pop(client, queue)["receipt"]
    assert call("EXTEND", receipt, "20") > 0
    assert call("ACK", receipt) == 1
    assert call("PeeK")[0]
    assert call("DELETE") == b"OK"


@pytest.mark.parametrize("options", [("COUNT", "2"), ("WITHMETA",), ("BLOCK", "9"), ("BLOCK", "9", "COUNT", "1")])
@pytest.mark.parametrize("command", [("VALQ.POP",), ("VALQ.MPOP", "1")])
def test_a_pop_that_repeats_itself_means_the_same_to_every_client(valqd, queue, command, options):
    again = (*command, queue, *options)
    with Connection(valqd.port) as old, Connection(valqd.port, 3) as new:
        for client in (old, new, old, new):
            client.call("VALQ.PUSH", queue, "x")
            taken = client.call(*again)
            message = taken[0] if "COUNT" in options else taken
            assert isinstance(message, list if client is old else dict)
            exact(client, b"*0\r\n" if "COUNT" in options else b"$-1\r\n" if client is old else b"_\r\n", *again)
            client.send_raw((request("VALQ.PUSH", queue, "y") + request(*again)) * 2)
            first_id = int(client.read())
            assert len(client.read()) == len(taken)
            assert int(client.read()) == first_id + 1
            assert len(client.read()) == len(taken)


@pytest.mark.parametrize("case", ARITY, ids=name_of)
def test_wrong_arity_is_said_in_valkeys_words(client, case):
    command, *args = case
    text = f"ERR wrong number of arguments for 'valq.{command.lower()}' command"
    for call in (("VALQ." + command, *args), ("VALQ", command, *args), ("valq." + command.lower(), *args)):
        exact(client, f"-{text}\r\n".encode(), *call)


@pytest.mark.parametrize("case", NEEDS_QUEUE, ids=lambda case: case[0])
def test_a_missing_queue_is_noqueue_with_auto_create_on_and_off(client, strict, queue, case):
    command, _, *args = case
    for connection in (client, strict):
        refused(connection.call("VALQ." + command, queue, *args), "NOQUEUE", queue)
    assert queue.encode() not in client.call("VALQ.LIST")


def test_push_and_pop_on_a_missing_queue_with_auto_create_on(client, queue):
    nothing = b"_\r\n" if client.call("VALQ.LIST") is not None and is_resp3(client) else b"$-1\r\n"
    exact(client, nothing, "VALQ.POP", queue)
    exact(client, b"*0\r\n", "VALQ.POP", queue, "COUNT", "3")
    exact(client, nothing, "VALQ.MPOP", "2", queue, queue + "x")
    refused(client.call("VALQ.INFO", queue), "NOQUEUE")
    exact(client, b"$1\r\n1\r\n", "VALQ.PUSH", queue, "hello")
    fields = info(client, queue)
    assert (fields["visibility_timeout"], fields["max_delivery_attempts"], fields["retention_period"]) == (30, 5, 86400)
    assert client.call("VALQ.MPUSH", queue + "m", "2", "a", "b") == [b"1", b"2"]


def test_push_and_pop_on_a_missing_queue_with_auto_create_off(strict, queue):
    for call in (
        ("VALQ.PUSH", queue, "hello"),
        ("VALQ.PUSH", queue, "hello", "PRIORITY", "3"),
        ("VALQ.MPUSH", queue, "1", "hello"),
        ("VALQ.POP", queue),
        ("VALQ.POP", queue, "COUNT", "2"),
        ("VALQ.MPOP", "1", queue),
    ):
        refused(strict.call(*call), "NOQUEUE", queue)
    assert queue.encode() not in strict.call("VALQ.LIST")
    assert strict.call("VALQ.CREATE", queue) == b"OK"
    assert strict.call("VALQ.PUSH", queue, "hello") == b"1"
    assert pop(strict, queue)["body"] == b"hello"


def is_resp3(connection) -> bool:
    return isinstance(connection.call("CONFIG", "GET", "maxclients"), dict)


def test_replies_have_the_exact_bytes_of_the_contract(client, resp, queue):
    null = {2: b"$-1\r\n", 3: b"_\r\n"}[resp]
    head = {2: b"*8\r\n", 3: b"%4\r\n"}[resp]
    exact(client, b"+OK\r\n", "VALQ.CREATE", queue)
    exact(client, b"$1\r\n1\r\n", "VALQ.PUSH", queue, "hello")
    popped = (
        b"$2\r\nid\r\n$1\r\n1\r\n$4\r\nbody\r\n$5\r\nhello\r\n$8\r\nattempts\r\n:1\r\n$7\r\nreceipt\r\n$3\r\n1-1\r\n"
    )
    exact(client, head + popped, "VALQ.POP", queue)
    exact(client, null, "VALQ.POP", queue)
    exact(client, b"*0\r\n", "VALQ.POP", queue, "COUNT", "5")
    exact(client, b":1\r\n", "VALQ.ACK", queue, "1-1")
    exact(client, b":0\r\n", "VALQ.ACK", queue, "1-1")
    exact(client, b":0\r\n", "VALQ.PURGE", queue)
    exact(client, b"*2\r\n$1\r\n2\r\n$1\r\n3\r\n", "VALQ.MPUSH", queue, "2", "", "x")
    exact(client, b"*1\r\n" + head + popped.replace(b"\r\n1\r\n", b"\r\n2\r\n", 1).replace(b"1-1", b"2-1").replace(
        b"$5\r\nhello", b"$0\r\n"
    ), "VALQ.POP", queue, "COUNT", "1")  # fmt: skip
    exact(client, b":1\r\n", "VALQ.NACK", queue, "2-1")
    exact(client, b":1\r\n", "VALQ.DEL", queue, "2")
    exact(client, b":1\r\n", "VALQ.CANCEL", queue, "3")
    exact(client, b":0\r\n", "VALQ.REDRIVE", queue)
    exact(client, b"+OK\r\n", "VALQ.PAUSE", queue, "NONE")
    exact(client, b"+OK\r\n", "VALQ.UPDATE", queue, "VT", "31")
    exact(client, b"*0\r\n", "VALQ.PEEK", queue)
    exact(client, b"*2\r\n$1\r\n0\r\n*0\r\n", "VALQ.SCAN", queue, "0")
    exact(client, b"*0\r\n", "VALQ.LIST", "MATCH", "no-such-queue-*")
    exact(client, b"+OK\r\n", "VALQ.DELETE", queue)


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1025, 16383, 16384, 16385, 65535, 300_000])
def test_bodies_of_any_size_come_back_as_they_were(client, queue, size):
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    client.call("VALQ.PUSH", queue, body)
    client.call("VALQ.PUSH", queue, body, "PRIORITY", "1")
    client.call("VALQ.MPUSH", queue, "2", body, b"\r\n\0")
    assert bodies(client.call("VALQ.PEEK", queue)) == [body, body, body, b"\r\n\0"]
    assert pop(client, queue)["body"] == body
    assert bodies(client.call("VALQ.POP", queue, "COUNT", 5)) == [body, body, b"\r\n\0"]
    assert show(client, queue, "1")["body"] == body


@pytest.mark.parametrize(
    "body", [b"\r\n", b"\0", b"*1\r\n$4\r\nPING\r\n", b"\xff\xfe", b"$-1", b"-ERR no", b":5\r\n", b""]
)
def test_bodies_and_header_values_are_binary_safe(client, queue, body):
    client.call("VALQ.PUSH", queue, body, "HEADERS", "1", "h", body)
    client.call("VALQ.PUSH", queue, body)
    first, second = pop(client, queue), pop(client, queue)
    assert first["body"] == second["body"] == body
    headers = first["headers"]
    assert (headers if isinstance(headers, dict) else dict(zip(headers[::2], headers[1::2], strict=True))) == {
        b"h": body
    }
    assert "headers" not in second


@pytest.mark.parametrize("name", ["q", "a" * 255, "a:b", "a*b[c]?", "Ünïcode", "-", "0", "valq", "'\"", "NX", "a%sb"])
def test_names_that_are_names(client, queue, name):
    client.call("VALQ.DELETE", name)
    assert client.call("VALQ.CREATE", name) == b"OK"
    assert name.encode() in client.call("VALQ.LIST")
    assert client.call("VALQ.PUSH", name, "x") == b"1"
    assert pop(client, name)["body"] == b"x"
    assert client.call("VALQ.ACK", name, "1-1") == 1
    assert client.call("VALQ.DELETE", name) == b"OK"


@ONE_VERSION
@pytest.mark.parametrize(
    "name", ["", "a" * 256, "a b", "a{b", "a}b", "{a}", "a\tb", "a\nb", "a\rb", "a\0b", "\x7f", "a\x1b"]
)
@pytest.mark.parametrize(
    "call",
    [
        ("CREATE", "{}"),
        ("PUSH", "{}", "b"),
        ("POP", "{}"),
        ("ACK", "{}", "1"),
        ("MPOP", "2", "ok", "{}"),
        ("INFO", "{}"),
    ],
    ids=lambda call: call[0],
)
def test_names_that_are_no_names_are_refused(client, name, call):
    queues = client.call("VALQ.LIST")
    command, *args = call
    refused(client.call("VALQ." + command, *(name if arg == "{}" else arg for arg in args)), "ERR invalid queue name")
    assert client.call("VALQ.LIST") == queues


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (("PUSH", "{q}", "b", "COLOUR", "red"), "COLOUR"),
        (("PUSH", "{q}", "b", "0", "COLOUR"), "COLOUR"),
        (("PUSH", "{q}", "b", "0", "1"), "1"),
        (("POP", "{q}", "NACK"), "NACK"),
        (("POP", "{q}", "5"), "5"),
        (("POP", "{q}", "COUNT", "1", "DELAY", "3"), "DELAY"),
        (("CREATE", "{q}x", "30", "5", "86400", "9"), "9"),
        (("CREATE", "{q}x", "COUNT", "1"), "COUNT"),
        (("UPDATE", "{q}", "NX"), "NX"),
        (("PURGE", "{q}", "EVERYTHING"), "EVERYTHING"),
        (("LIST", "FOO", "bar"), "FOO"),
        (("PEEK", "{q}", "GONE"), "GONE"),
        (("NACK", "{q}", "1", "HARD"), "HARD"),
        (("SCAN", "{q}", "0", "VT", "1"), "VT"),
        (("REDRIVE", "{q}", "SOME"), "SOME"),
        (("PAUSE", "{q}", "SIDEWAYS"), "SIDEWAYS"),
        (("MPOP", "1", "{q}", "UNFAIR"), "UNFAIR"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_an_unknown_option_is_named_and_nothing_changes(client, queue, call, named):
    client.call("VALQ.PUSH", queue, "there")
    before = info(client, queue)
    command, *args = call
    refused(client.call("VALQ." + command, *(arg.format(q=queue) for arg in args)), "ERR", f"'{named}'")
    after = info(client, queue)
    assert after | {"oldest_ready_age_ms": 0} == before | {"oldest_ready_age_ms": 0}


@pytest.mark.parametrize(
    "call",
    [
        ("PUSH", "{q}", "b", "DELAY", "1", "DELAY", "1"),
        ("PUSH", "{q}", "b", "1", "DELAY", "1"),
        ("PUSH", "{q}", "b", "1", "AT", "1"),
        ("PUSH", "{q}", "b", "DELAY", "1", "AT", "1"),
        ("PUSH", "{q}", "b", "PRIORITY", "1", "PRIORITY", "1"),
        ("PUSH", "{q}", "b", "WINDOW", "5"),
        ("PUSH", "{q}", "b", "UNTILDONE"),
        ("PUSH", "{q}", "b", "DEDUP", "k", "WINDOW", "5", "UNTILDONE"),
        ("PUSH", "{q}", "b", "HEADERS", "2", "a", "1", "b"),
        ("PUSH", "{q}", "b", "HEADERS", "0"),
        ("PUSH", "{q}", "b", "HEADERS", "2", "a", "1", "a", "2"),
        ("PUSH", "{q}", "b", "VT"),
        ("POP", "{q}", "COUNT", "1", "COUNT", "1"),
        ("POP", "{q}", "NOACK", "NOACK"),
        ("POP", "{q}", "COUNT"),
        ("MPOP", "1", "{q}", "ORDER", "FAIR"),
        ("NACK", "{q}", "1", "FAIL", "SILENT"),
        ("NACK", "{q}", "1", "FATAL", "DELAY", "3"),
        ("PEEK", "{q}", "READY", "DLQ"),
        ("PEEK", "{q}", "OFFSET", "1", "REV"),
        ("CREATE", "{q}x", "30", "VT", "30"),
        ("CREATE", "{q}x", "JITTER", "30"),
        ("CREATE", "{q}x", "MAXLEN", "1", "MAXLEN", "1"),
        ("REDRIVE", "{q}", "ALL", "ID", "1", "1"),
        ("PURGE", "{q}", "ALL", "READY"),
        ("MPUSH", "{q}", "3", "a", "b"),
        ("MPUSH", "{q}", "0", "a"),
        ("MPOP", "2", "{q}"),
        ("MPOP", "0", "{q}"),
        ("SCAN", "{q}", "0", "HEADER", "a"),
    ],
    ids=" ".join,
)
def test_options_that_do_not_fit_are_an_error_and_nothing_changes(client, queue, call):
    client.call("VALQ.PUSH", queue, "there")
    command, *args = call
    refused(client.call("VALQ." + command, *(arg.format(q=queue) for arg in args)), "ERR")
    assert counts(client, queue) == {"ready": 1}
    assert info(client, queue)["id_sequence"] == 1
    assert (queue + "x").encode() not in client.call("VALQ.LIST")


NUMBERS = [
    "",
    " 1",
    "1 ",
    "+1",
    "-1",
    "0x1",
    "1e0",
    "nan",
    "inf",
    "01",
    "1.",
    ".5",
    "1,5",
    "99999999999999999999999",
    "x",
]


@ONE_VERSION
@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    "call",
    [
        ("CREATE", "{q}x", "{n}"),
        ("CREATE", "{q}x", "VT", "{n}"),
        ("CREATE", "{q}x", "30", "5", "{n}"),
        ("CREATE", "{q}x", "RETENTION", "{n}"),
        ("UPDATE", "{q}", "{n}", "5", "60"),
        ("PUSH", "{q}", "b", "DELAY", "{n}"),
        ("PUSH", "{q}", "b", "TTL", "{n}"),
        ("PUSH", "{q}", "b", "PRIORITY", "{n}"),
        ("POP", "{q}", "COUNT", "{n}"),
        ("POP", "{q}", "BLOCK", "{n}"),
        ("EXTEND", "{q}", "1", "{n}"),
        ("MPUSH", "{q}", "{n}", "b"),
    ],
    ids=" ".join,
)
def test_numbers_with_trailing_junk_are_no_numbers(client, queue, call, number):
    client.call("VALQ.PUSH", queue, "there")
    command, *args = call
    refused(client.call("VALQ." + command, *(arg.format(q=queue, n=number) for arg in args)), "ERR")
    assert info(client, queue)["id_sequence"] == 1
    assert (queue + "x").encode() not in client.call("VALQ.LIST")


@pytest.mark.parametrize(
    "seconds", ["18446744073709551615", "18446744073709551614.999", "9223372036854775807", "9007199254740993", "1e0"]
)
def test_a_delay_takes_the_whole_u64_and_never_falls_into_the_past(client, direct, queue, seconds):
    if seconds == "1e0":
        refused(client.call("VALQ.PUSH", queue, "b", seconds), "ERR")
        return
    for number, option in enumerate([(seconds,), ("DELAY", seconds)], 1):
        assert client.call("VALQ.PUSH", queue, "b", *option) == b"%d" % number
    assert client.call("VALQ.MPUSH", queue, "1", "b", "DELAY", seconds) == [b"3"]
    assert pop(client, queue) is None
    assert counts(client, queue) == {"delayed": 3}
    assert show(client, queue, "1")["due"] > backend_ms(direct) + 10**15


def test_one_more_than_u64_is_refused(client, queue):
    for seconds in ("18446744073709551616", "18446744073709551615.001"):
        refused(client.call("VALQ.PUSH", queue, "b", seconds), "ERR", "delay")
        refused(client.call("VALQ.PUSH", queue, "b", "DELAY", seconds), "ERR", "DELAY")
    refused(client.call("VALQ.INFO", queue), "NOQUEUE")


@pytest.mark.parametrize("seconds", ["0.25", "0.001", "0.0001", "0.1"])
def test_delays_take_decimals_and_never_fire_early(client, direct, queue, seconds):
    before = backend_ms(direct)
    client.call("VALQ.PUSH", queue, "b", seconds)
    while (popped := pop(client, queue)) is None:
        pass
    assert backend_ms(direct) - before >= float(seconds) * 1000
    assert popped["attempts"] == 1


def test_a_queue_belongs_to_the_database_that_is_selected(valqd, resp, queue):
    with Connection(valqd.port, resp) as one, Connection(valqd.port, resp) as two:
        assert one.call("SELECT", "3") == b"OK"
        assert one.call("VALQ.PUSH", queue, "in three") == b"1"
        assert two.call("VALQ.POP", queue) is None
        refused(two.call("VALQ.INFO", queue), "NOQUEUE")
        assert queue.encode() not in two.call("VALQ.LIST")
        assert two.call("VALQ.PUSH", queue, "in nought") == b"1"
        assert pop(one, queue)["body"] == b"in three"
        assert pop(two, queue)["body"] == b"in nought"
        assert one.call("VALQ.DELETE", queue) == b"OK"
        assert one.call("SELECT", "0") == b"OK"
        assert info(one, queue)["inflight_msgs"] == 1


def test_state_lives_under_the_queues_keys_alone(valkey, valqd, resp, queue):
    with Connection(valqd.port, resp) as client, Connection(valkey.port) as direct:
        client.call("SELECT", "9")
        direct.call("SELECT", "9")
        assert direct.call("DBSIZE") == 0
        client.call("VALQ.CREATE", queue, "BACKOFF", "FIXED", "1", "1", "MAXLEN", "100")
        client.call("VALQ.MPUSH", queue, "3", "a", "b", "c" * 5000, "DEDUP", "k", "TTL", "50")
        client.call("VALQ.PUSH", queue, "a", "DELAY", "5")
        client.call("VALQ.POP", queue)
        client.call("VALQ.NACK", queue, "1", "FATAL", "REASON", "no")
        assert all(key.startswith(b"valq:{%b}:" % queue.encode()) for key in direct.call("KEYS", "*"))
        assert client.call("VALQ.DELETE", queue) == b"OK"
        assert direct.call("DBSIZE") == 0


@pytest.mark.parametrize(
    "spelling", [("VALQ.FROB",), ("VALQ", "FROB"), ("valq.frob", "x"), ("VALQ.",), ("VALQ.PUSH.X", "q")]
)
def test_an_unknown_valq_command_is_named(client, spelling):
    refused(client.call(*spelling), "ERR unknown command")


def test_a_key_of_another_type_is_valkeys_own_error(client, direct, queue):
    direct.call("SET", f"valq:{{{queue}}}:queue", "mine")
    for call in (("PUSH", queue, "x"), ("POP", queue), ("ACK", queue, "1"), ("INFO", queue), ("CREATE", queue)):
        refused(
            client.call("VALQ." + call[0], *call[1:]),
            "WRONGTYPE Operation against a key holding the wrong kind of value",
        )
    direct.call("DEL", f"valq:{{{queue}}}:queue")


def test_a_limit_of_bytes_holds_once_update_has_answered(client, queue):
    client.call("VALQ.MPUSH", queue, 20_000, *["x" * 10] * 20_000)
    client.send("VALQ.UPDATE", queue, "MAXBYTES", 150_000)
    client.send("VALQ.PUSH", queue, "y")
    assert client.read() == b"OK"
    refused(client.read(), "FULL", "MAXBYTES is 150000")


def fcalls(valkey):
    with Connection(valkey.port) as direct:
        return int(direct.call("INFO", "commandstats").partition(b"cmdstat_fcall:calls=")[2].split(b",")[0])


@pytest.mark.parametrize("name", ["ACK", "NACK", "DEL"])
def test_many_ids_are_taken_in_steps(valkey, client, queue, name):
    for _ in range(3):
        client.call("VALQ.MPUSH", queue, "1000", *"x" * 1000)
    taken = [as_map(each)[b"receipt"] for each in client.call("VALQ.POP", queue, "COUNT", "3000")]
    before = fcalls(valkey)
    assert client.call("VALQ." + name, queue, *taken, "9999", taken[0]) == 3000
    assert fcalls(valkey) - before >= 4
    refused(client.call("VALQ." + name, queue + "x", *taken), "NOQUEUE")


def test_a_command_in_steps_is_so_behind_a_foreign_one(valkey, client, queue):
    for _ in range(5):
        client.call("VALQ.MPUSH", queue, "1000", *"x" * 1000, "PRIORITY", "1")
    before = fcalls(valkey)
    client.send_raw(request("OBJECT", "ENCODING", "none") + request("VALQ.PURGE", queue))
    client.read()
    assert client.read() == 5000
    assert fcalls(valkey) - before >= 2

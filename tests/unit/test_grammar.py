"""What the grammar makes of single commands, claim by claim.  What holds for every SPEC is in test_grammar_table."""

from __future__ import annotations

import pytest

from valqd.commands.grammar import parse
from valqd.commands.request import Merge, Request, Steps, function_call, packed, queue_key
from valqd.commands.table import is_ours
from valqd.errors import CommandError

MAX_BODY_BYTES = 100


def ask(line: str, resp: int = 2) -> Request:
    return parse(line.encode().split(b" "), resp, MAX_BODY_BYTES)


def refusal(line: str | list[bytes]) -> str:
    argv = line.encode().split(b" ") if isinstance(line, str) else line
    with pytest.raises(CommandError) as caught:
        parse(argv, 2, MAX_BODY_BYTES)
    return str(caught.value)


# Names


@pytest.mark.parametrize("line", ["VALQ.PUSH q m", "valq.push q m", "VALQ PUSH q m", "valq push q m", "Valq.Push q m"])
def test_all_spellings_are_one_command(line: str) -> None:
    assert ask(line) == ask("VALQ.PUSH q m")


def test_errors_name_the_command_the_same_way_in_both_spellings() -> None:
    text = "ERR wrong number of arguments for 'valq.push' command"
    assert refusal("VALQ PUSH q") == refusal("VALQ.PUSH q") == text


def test_valq_alone_is_help() -> None:
    assert ask("VALQ") == ask("VALQ HELP") == Request("", (), ())


@pytest.mark.parametrize("line", ["VALQ.NOSUCH q", "VALQ NOSUCH q"])
def test_unknown_command_is_named(line: str) -> None:
    assert refusal(line) == "ERR unknown command 'VALQ.NOSUCH', try VALQ.HELP"


@pytest.mark.parametrize("name", [b"VALQ", b"valq", b"VALQ.PUSH", b"vAlQ.x", b"VALQ."])
def test_is_ours(name: bytes) -> None:
    assert is_ours(name)


@pytest.mark.parametrize("name", [b"", b"VAL", b"VALQX", b"VALQ|PUSH", b"GET", b"xVALQ.PUSH"])
def test_is_not_ours(name: bytes) -> None:
    assert not is_ours(name)


# Queue names and ids


@pytest.mark.parametrize("name", [b"q", b"Q-1_2:3/4.5", b"q" * 255, "größe".encode(), b"\xff\xfe", b"'\"\\"])
def test_queue_name_is_taken(name: bytes) -> None:
    assert parse([b"VALQ.POP", name], 2, MAX_BODY_BYTES).queues == (name,)


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"q" * 256,
        b"a b",
        b"a{b",
        b"a}b",
        b"a\tb",
        b"a\n",
        b"a\x00",
        b"\x7f",
        "a\u00a0b".encode(),
        "\u0085".encode(),
    ],
)
def test_queue_name_is_refused(name: bytes) -> None:
    text = refusal([b"VALQ.POP", name])
    assert text.startswith("ERR invalid queue name '")
    assert len(text) < 300
    assert text.isprintable()
    assert text.isascii()


@pytest.mark.parametrize("raw", [b"1", b"12-3", b"9" * 19, b"1-" + b"9" * 10])
def test_id_or_receipt_is_taken(raw: bytes) -> None:
    assert parse([b"VALQ.ACK", b"q", raw], 2, MAX_BODY_BYTES).args == (raw,)


@pytest.mark.parametrize(
    "raw", [b"", b"0", b"01", b"-1", b"1-", b"1-0", b"1-01", b"1-2-3", b"1 ", b"x", b"9" * 20, b"1\n", b"+1", b"1.0"]
)
def test_malformed_id_is_refused_by_name(raw: bytes) -> None:
    for command in (b"VALQ.ACK", b"VALQ.DEL", b"VALQ.NACK", b"VALQ.SHOW", b"VALQ.CANCEL"):
        assert refusal([command, b"q", raw]).startswith("ERR invalid id '")


def test_echoed_bytes_are_escaped_and_cut() -> None:
    assert refusal([b"VALQ.ACK", b"q", b"a\r\n\x00\xff"]) == (
        r"ERR invalid id 'a\x0d\x0a\x00\xff': must be a message id (7) or a receipt (7-1)"
    )
    assert refusal([b"VALQ.ACK", b"q", b"x" * 1000]) == (
        "ERR invalid id '" + "x" * 64 + "...': must be a message id (7) or a receipt (7-1)"
    )


# Numbers


@pytest.mark.parametrize(
    ("seconds", "ms"),
    [
        ("0.25", b"250"),
        ("5", b"5000"),
        ("1.0", b"1000"),
        ("0.0001", b"1"),
        ("1.0001", b"1001"),
        ("1.0000000000", b"1000"),
        ("0.1234", b"124"),
        ("18446744073709551615", b"18446744073709551615000"),
        ("18446744073709551614.999", b"18446744073709551614999"),
    ],
)
def test_seconds_become_milliseconds_rounded_up_and_exact(seconds: str, ms: bytes) -> None:
    assert ask(f"VALQ.PUSH q m DELAY {seconds}").args[:4] == (b"", b"1", b"delay", ms)
    assert ask(f"VALQ.PUSH q m {seconds}") == ask(f"VALQ.PUSH q m DELAY {seconds}")


@pytest.mark.parametrize("raw", ["18446744073709551615.001", "18446744073709551616", "9" * 30, "-0", "1.", ".5", "1,5"])
def test_delay_out_of_range_is_refused_by_name(raw: str) -> None:
    assert refusal(f"VALQ.PUSH q m DELAY {raw}") == f"ERR DELAY must be 0 to 18446744073709551615 seconds, not '{raw}'"


def test_ranges_are_named() -> None:
    assert refusal("VALQ.CREATE q 0.9999") == "ERR visibility_timeout must be 1 to 43200 seconds, not '0.9999'"
    assert refusal("VALQ.CREATE q 0") == "ERR visibility_timeout must be 1 to 43200 seconds, not '0'"
    assert refusal("VALQ.CREATE q 30 0") == "ERR max_delivery_attempts must be an integer from 1 to 1000, not '0'"
    retention = "ERR retention_period must be 60 to 31536000 seconds, or 0 for ever"
    assert refusal("VALQ.CREATE q 30 5 59") == retention + ", not '59'"
    assert refusal("VALQ.POP q COUNT 0") == "ERR COUNT must be an integer from 1 to 10000, not '0'"
    assert refusal("VALQ.POP q BLOCK -1") == "ERR BLOCK must be an integer from 0 to 9007199254740991 ms, not '-1'"


# CREATE and UPDATE


DEFAULTS = {b"visibility_timeout": b"30000", b"max_delivery_attempts": b"5", b"retention_period": b"86400000"}


def settings(line: str) -> dict[bytes, bytes]:
    request = ask(line)
    pairs = request.args[1:] if request.function == "create" else request.args
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


def test_create_fills_in_defaults() -> None:
    assert settings("VALQ.CREATE q") == DEFAULTS
    assert settings("VALQ.CREATE q 1.5") == DEFAULTS | {b"visibility_timeout": b"1500"}
    assert settings("VALQ.CREATE q RETENTION 0") == DEFAULTS | {b"retention_period": b"0"}


def test_create_takes_numbers_by_position_and_others_by_name() -> None:
    assert settings("VALQ.CREATE q 10 MAXATTEMPTS 3 RETENTION 60") == settings("VALQ.CREATE q 10 3 60")
    assert ask("VALQ.CREATE q 10 nx").args[0] == b"1"


def test_a_number_both_by_position_and_by_name_is_refused() -> None:
    assert refusal("VALQ.CREATE q 10 VT 10") == "ERR visibility_timeout and VT cannot be given together"
    assert refusal("VALQ.UPDATE q 10 5 0 RETENTION 60") == "ERR retention_period and RETENTION cannot be given together"


def test_create_hands_on_every_setting() -> None:
    line = "VALQ.CREATE q BACKOFF exp 0.5 60 JITTER 10 MAXLEN 7 MAXBYTES 8 OVERFLOW drophead DLQ dead MAXLEASE 90"
    assert settings(line) == DEFAULTS | {
        b"backoff": b"EXP:500:60000:10",
        b"max_length": b"7",
        b"max_bytes": b"8",
        b"overflow": b"DROPHEAD",
        b"dead_letter_queue": b"dead",
        b"max_lease": b"90000",
    }


def test_create_leaves_out_what_is_none() -> None:
    assert settings("VALQ.CREATE q BACKOFF NONE MAXLEN 0 MAXBYTES none DLQ NONE MAXLEASE 0") == DEFAULTS


def test_update_by_position_needs_all_three() -> None:
    arity = "ERR wrong number of arguments for 'valq.update' command"
    for line in ("VALQ.UPDATE q", "VALQ.UPDATE q 10", "VALQ.UPDATE q 10 5", "VALQ.UPDATE q 10 5 MAXLEN 3"):
        assert refusal(line) == arity
    assert settings("VALQ.UPDATE q 10 5 0") == {
        b"visibility_timeout": b"10000",
        b"max_delivery_attempts": b"5",
        b"retention_period": b"0",
    }


def test_update_by_name_changes_only_what_is_named() -> None:
    assert settings("VALQ.UPDATE q vt 10") == {b"visibility_timeout": b"10000"}


def test_update_removes_options() -> None:
    removed = settings("VALQ.UPDATE q BACKOFF NONE MAXLEN 0 MAXBYTES 0 OVERFLOW NONE DLQ none MAXLEASE 0")
    assert set(removed.values()) == {b""}
    assert len(removed) == 6


def test_a_queue_cannot_be_its_own_dead_letter_queue() -> None:
    for command in ("CREATE", "UPDATE"):
        assert refusal(f"VALQ.{command} q DLQ q") == "ERR queue 'q' cannot be its own dead letter queue"


def test_the_dead_letter_queue_is_a_key_so_that_the_acl_covers_it() -> None:
    assert ask("VALQ.CREATE q DLQ dead").queues == (b"q", b"dead")
    assert ask("VALQ.UPDATE q DLQ NONE").queues == (b"q",)


def test_backoff_is_refused_when_it_contradicts_itself() -> None:
    assert refusal("VALQ.CREATE q JITTER 5") == "ERR JITTER needs BACKOFF"
    assert refusal("VALQ.CREATE q BACKOFF EXP 5 4") == "ERR BACKOFF cap-s must be at least base-s"
    assert refusal("VALQ.CREATE q BACKOFF NONE JITTER 5") == "ERR BACKOFF NONE and JITTER cannot be given together"
    assert refusal("VALQ.CREATE q BACKOFF SOME 1 2") == "ERR BACKOFF kind must be FIXED, LINEAR or EXP, not 'SOME'"
    assert "BACKOFF lacks its values" in refusal("VALQ.CREATE q BACKOFF EXP 5")


# PUSH and MPUSH


@pytest.mark.parametrize(
    "line", ["VALQ.PUSH q m", "VALQ.PUSH q m 0", "VALQ.PUSH q m DELAY 0", "VALQ.PUSH q m PRIORITY 0"]
)
def test_plain_push_joins_a_merged_call(line: str) -> None:
    assert ask(line) == Request(
        "push", (b"q",), (b"", b"0", b"0", b"m"), takes_auto=True, merge=Merge("push_many", (), (b"m",))
    )


def test_push_with_options_joins_those_that_have_some() -> None:
    request = ask("VALQ.PUSH q m headers 2 a b VT c ttl 2 vt 0.5 maxattempts 3 priority 9 at 17 dedup k")
    assert request.merge == Merge("push_records", (), (packed(request.args[1:-1]), b"m"))
    assert request.args == (
        *(b"", b"7", b"at", b"17", b"vt", b"500", b"ttl", b"2000", b"max_attempts", b"3", b"priority", b"9"),
        *(b"dedup", b"k", b"dedup_window", b"300000", b"2", b"a", b"b", b"VT", b"c", b"m"),
    )


def test_a_body_may_look_like_an_option() -> None:
    assert ask("VALQ.PUSH q DELAY").args[-1] == b"DELAY"
    assert ask("VALQ.MPUSH q 2 VT 5 VT 5").args[-2:] == (b"VT", b"5")


def test_dedup_is_held_for_a_window_or_until_done() -> None:
    assert ask("VALQ.PUSH q m WINDOW 5 DEDUP k").args[2:6] == (b"dedup", b"k", b"dedup_window", b"5000")
    assert ask("VALQ.PUSH q m DEDUP k UNTILDONE").args[2:6] == (b"dedup", b"k", b"dedup_until_done", b"1")
    assert refusal("VALQ.PUSH q m DEDUP k UNTILDONE WINDOW 5") == "ERR UNTILDONE and WINDOW cannot be given together"
    assert refusal("VALQ.PUSH q m WINDOW 5") == "ERR WINDOW needs DEDUP"
    assert refusal("VALQ.PUSH q m UNTILDONE") == "ERR UNTILDONE needs DEDUP"


def test_two_delays_are_refused() -> None:
    assert refusal("VALQ.PUSH q m DELAY 5 AT 9") == "ERR DELAY and AT cannot be given together"
    assert refusal("VALQ.PUSH q m 5 DELAY 5") == "ERR delay and DELAY cannot be given together"
    assert refusal("VALQ.PUSH q m 5 AT 5") == "ERR delay and AT cannot be given together"


def test_headers_are_counted_and_named_once() -> None:
    assert "HEADERS lacks its values" in refusal("VALQ.PUSH q m HEADERS 2 a b c")
    assert refusal("VALQ.PUSH q m HEADERS 2 a b a c") == "ERR header 'a' is given twice"
    assert refusal("VALQ.PUSH q m HEADERS 0") == "ERR HEADERS n must be an integer from 1 to 128, not '0'"
    assert refusal("VALQ.PUSH q m HEADERS 1 a b c d").startswith(
        "ERR unknown option 'c' for 'valq.push' command (it knows "
    )


def test_headers_of_all_messages_are_bounded() -> None:
    def mpush(size: int) -> Request:
        argv = [b"VALQ.MPUSH", b"q", b"4", *[b"body"] * 4, b"HEADERS", b"1", b"f", b"x" * size]
        return parse(argv, 2, 32 << 20)

    assert mpush((16 << 20) - 1).args[-1] == b"body"
    one = [b"VALQ.PUSH", b"q", b"body", b"HEADERS", b"1", b"f", b"x" * (65 << 20)]
    assert parse(one, 2, 128 << 20).args[-1] == b"body"
    with pytest.raises(CommandError, match="67108864 bytes of headers together, not 4 times 16777217"):
        mpush(16 << 20)
    bodies = [b"VALQ.MPUSH", b"q", b"100000", *[b"body"] * 100_000, b"HEADERS"]
    ten = [word for n in range(10) for word in (b"%d" % n, b"")]
    assert parse([*bodies, b"10", *ten], 2, 32 << 20).args[-1] == b"body"
    with pytest.raises(CommandError, match="1000000 headers together, not 100000 times 11"):
        parse([*bodies, b"11", *ten, b"f", b""], 2, 32 << 20)


def test_the_reason_of_all_messages_is_bounded() -> None:
    ids = [b"%d" % n for n in range(1, 2049)]
    assert parse([b"VALQ.NACK", b"q", *ids[:1024], b"REASON", b"x" * 65536], 2, 1 << 20).args[2] == b"x" * 65536
    with pytest.raises(CommandError, match="REASON must be at most 32768 bytes long for 2048 messages"):
        parse([b"VALQ.NACK", b"q", *ids, b"REASON", b"x" * 32769], 2, 1 << 20)


def test_body_and_header_value_are_bounded_by_max_body_bytes() -> None:
    assert parse([b"VALQ.PUSH", b"q", b"x" * 100], 2, MAX_BODY_BYTES).args[-1] == b"x" * 100
    assert refusal([b"VALQ.PUSH", b"q", b"x" * 101]) == "ERR body is larger than max_body_bytes (100)"
    assert refusal([b"VALQ.MPUSH", b"q", b"1", b"x" * 101]) == "ERR body is larger than max_body_bytes (100)"
    text = refusal([b"VALQ.PUSH", b"q", b"m", b"HEADERS", b"1", b"f", b"x" * 101])
    assert text == "ERR HEADERS value is larger than max_body_bytes (100)"


@pytest.mark.parametrize(("size", "merges"), [(16_383, True), (16_384, False)])
def test_a_push_of_large_headers_is_a_call_of_its_own(size: int, merges: bool) -> None:
    request = parse([b"VALQ.PUSH", b"q", b"m", b"HEADERS", b"1", b"f", b"x" * size], 2, 1 << 20)
    assert (request.merge is not None) == merges


def test_mpush_counts_its_bodies() -> None:
    request = ask("VALQ.MPUSH q 2 a b PRIORITY 3")
    assert request.args == (b"1", b"1", b"priority", b"3", b"0", b"a", b"b")
    assert request.merge is None
    assert refusal("VALQ.MPUSH q 0") == "ERR count must be an integer from 1 to 100000, not '0'"
    assert refusal("VALQ.MPUSH q 1") == "ERR wrong number of arguments for 'valq.mpush' command"
    assert refusal("VALQ.MPUSH q 3 a b") == "ERR count is 3, but only 2 more given"
    assert refusal("VALQ.MPUSH q 1 a b").startswith("ERR unknown option 'b' for 'valq.mpush' command (it knows ")


# POP and MPOP


def test_plain_pop() -> None:
    assert ask("VALQ.POP q") == Request(
        "pop", (b"q",), (b"", b"", b""), takes_auto=True, merge=Merge("pop_many", (), (b"1", b""))
    )
    merge = ask("VALQ.POP q", resp=3).merge
    assert merge is not None
    assert merge.items == (b"1", b"3,,,")


def test_pop_with_options_merges_by_its_spec() -> None:
    request = ask("VALQ.POP q withmeta vt 60 noack count 10")
    assert request.args == (b"10", b"60000", b"NM")
    assert request.merge == Merge("pop_many", (), (b"1", b"2,10,60000,NM"))


def test_block_is_kept_for_the_daemon() -> None:
    assert ask("VALQ.POP q").block_ms is None
    assert ask("VALQ.POP q BLOCK 0").block_ms == 0
    assert ask("VALQ.POP q BLOCK 250").block_ms == 250
    assert ask("VALQ.POP q BLOCK 250").merge == ask("VALQ.POP q").merge


def test_mpop_takes_all_queues_as_keys() -> None:
    request = ask("VALQ.MPOP 2 a b COUNT 3 BLOCK 5 FAIR")
    assert request == Request("mpop", (b"a", b"b"), (b"3", b"", b""), takes_auto=True, block_ms=5, fair=True)
    assert not ask("VALQ.MPOP 1 a ORDER").fair
    assert refusal("VALQ.MPOP 1 a FAIR ORDER") == "ERR FAIR and ORDER cannot be given together"
    assert refusal("VALQ.MPOP 3 a b") == "ERR numkeys is 3, but only 2 more given"


# ACK, NACK, EXTEND


def test_ack_merges_its_ids() -> None:
    assert ask("VALQ.ACK q 1 2-3") == Request(
        "ack", (b"q",), (b"1", b"2-3"), merge=Merge("ack_many", (), (b"1", b"2-3")), ids=2
    )


def test_nack_merges_with_those_of_the_same_kind() -> None:
    request = ask("VALQ.NACK q 1 2-3 REASON late DELAY 0 SILENT")
    assert request.args == (b"SILENT", b"0", b"late", b"1", b"2-3")
    assert request.merge == Merge("nack_many", (b"SILENT", b"0", b"late"), (b"1", b"2-3"))
    assert ask("VALQ.NACK q 1").args == (b"FAIL", b"", b"", b"1")


def test_nack_takes_one_kind_and_no_delay_for_the_dead() -> None:
    assert refusal("VALQ.NACK q 1 SILENT FAIL") == "ERR SILENT and FAIL cannot be given together"
    assert refusal("VALQ.NACK q 1 FATAL DELAY 5") == "ERR FATAL and DELAY cannot be given together"
    assert refusal("VALQ.NACK q 1 2x") == "ERR invalid id '2x': must be a message id (7) or a receipt (7-1)"
    known = "DELAY, SILENT, FAIL, FATAL, REASON"
    assert refusal("VALQ.NACK q 1 WRONG") == f"ERR unknown option 'WRONG' for 'valq.nack' command (it knows {known})"


def test_extend_merges_its_pair() -> None:
    request = ask("VALQ.EXTEND q 1-1 1.5")
    assert request.args == (b"1-1", b"1500")
    assert request.merge == Merge("extend_many", (), (b"1-1", b"1500"))


# The rest


@pytest.mark.parametrize(
    ("line", "function", "queues", "args"),
    [
        ("VALQ.DELETE q", "delete", (b"q",), ()),
        ("VALQ.LIST", "list", (), (b"",)),
        ("VALQ.LIST MATCH a*", "list", (), (b"a*",)),
        ("VALQ.INFO q", "info", (b"q",), ()),
        ("VALQ.PURGE q", "purge", (b"q",), (b"main",)),
        ("VALQ.PURGE q Dlq", "purge", (b"q",), (b"dlq",)),
        ("VALQ.PAUSE q in", "pause", (b"q",), (b"IN", b"")),
        ("VALQ.PAUSE q ALL FOR 0.5", "pause", (b"q",), (b"ALL", b"500")),
        ("VALQ.DEL q 1 2", "del", (b"q",), (b"1", b"2")),
        ("VALQ.CANCEL q 1-2", "cancel", (b"q",), (b"1-2",)),
        ("VALQ.SHOW q 1", "show", (b"q",), (b"1",)),
        ("VALQ.PEEK q", "peek", (b"q",), (b"ready", b"10", b"0", b"")),
        ("VALQ.PEEK q COUNT 2 REV DLQ", "peek", (b"q",), (b"dlq", b"2", b"0", b"1")),
        ("VALQ.PEEK q OFFSET 7", "peek", (b"q",), (b"ready", b"10", b"7", b"")),
        ("VALQ.SCAN q 0", "scan", (b"q",), (b"0", b"", b"", b"", b"", b"10", b"")),
        (
            "VALQ.SCAN q 5 MATCH a* STATE Dlq COUNT 3 HEADER f v",
            "scan",
            (b"q",),
            (b"5", b"dlq", b"f", b"v", b"a*", b"3", b"1"),
        ),
        ("VALQ.REDRIVE q", "redrive", (b"q",), (b"ALL", b"", b"")),
        ("VALQ.REDRIVE q ID 2 3 1 TO r LIMIT 1", "redrive", (b"q", b"r"), (b"ID", b"r", b"1", b"3", b"1")),
        ("VALQ.REDRIVE q TO q", "redrive", (b"q",), (b"ALL", b"", b"")),
        ("VALQ.HELP PUSH", "", (), (b"PUSH",)),
        ("VALQ.HELP valq.push", "", (), (b"valq.push",)),
    ],
)
def test_request(line: str, function: str, queues: tuple[bytes, ...], args: tuple[bytes, ...]) -> None:
    request = ask(line)
    assert (request.function, request.queues, request.args) == (function, queues, args)
    assert request.merge is None
    assert (request.steps is Steps.TOKEN) == (function in ("purge", "redrive", "list"))


def test_refusals_of_the_rest() -> None:
    assert refusal("VALQ.PAUSE q SIDEWAYS") == "ERR direction must be IN, OUT, ALL or NONE, not 'SIDEWAYS'"
    assert refusal("VALQ.PAUSE q NONE FOR 5") == "ERR NONE and FOR cannot be given together"
    assert refusal("VALQ.PURGE q SOME").startswith("ERR unknown option 'SOME' for 'valq.purge' command (it knows ")
    assert refusal("VALQ.PEEK q REV OFFSET 3") == "ERR REV and OFFSET cannot be given together"
    assert refusal("VALQ.SCAN q x") == ("ERR invalid cursor 'x': must be 0, or the cursor of the last reply")
    assert refusal("VALQ.HELP NOSUCH") == "ERR unknown command 'VALQ.NOSUCH', try VALQ.HELP"


# Calls


def test_queue_key() -> None:
    assert queue_key(b"orders") == b"valq:{orders}:queue"


def test_function_call_order() -> None:
    key = b"valq:{q}:queue"
    assert function_call(ask("VALQ.ACK q 1"), b"e2", b"") == [b"FCALL", b"valq1_ack", b"1", key, b"e2", b"1"]
    assert function_call(ask("VALQ.PURGE q"), b"e3", b"", b"tok") == [
        *(b"FCALL", b"valq1_purge", b"1", key, b"e3", b"tok", b"main")
    ]
    assert function_call(ask("VALQ.PUSH q m"), b"n2", b"30000:5:0") == [
        *(b"FCALL", b"valq1_push", b"1", key, b"n2", b"30000:5:0", b"", b"0", b"0", b"m")
    ]
    assert function_call(ask("VALQ.LIST"), b"n2", b"") == [b"FCALL", b"valq1_list", b"0", b"n2", b"", b""]
    assert function_call(ask("VALQ.MPOP 2 a b"), b"n3", b"")[:6] == [
        *(b"FCALL", b"valq1_mpop", b"2", b"valq:{a}:queue", b"valq:{b}:queue", b"n3")
    ]

"""The fast path takes whole plain commands and hands on their very arguments, or takes nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.servers import request
from valqd.commands.grammar import parse
from valqd.protocol.calls import MAX_ITEMS
from valqd.protocol.coalescer import Coalescer, Routes
from valqd.protocol.encoding import bulk
from valqd.protocol.fastpath import (
    _HEAD,
    MAX_BODY_BYTES,
    MAX_BYTES_AT_ONCE,
    MAX_LENGTHS,
    MAX_SUFFIX_BYTES,
    MAX_SUFFIXES,
    MAX_TEMPLATES,
    MAX_WHOLE_BYTES,
    AckTemplate,
    PopTemplate,
    PushTemplate,
    Templates,
)
from valqd.protocol.framing import MAX_BULK_BYTES

PUSH = b"*3\r\n$9\r\nVALQ.PUSH\r\n$1\r\nq\r\n$"
POP = request("VALQ.POP", "q")
ACK = b"*3\r\n$8\r\nVALQ.ACK\r\n$1\r\nq\r\n$"


class Nobody:
    last_seq = 0
    last_call = None
    gone = False


@pytest.fixture(scope="module")
def templates():
    routes = Routes(b"")
    templates = Templates(2)
    templates.learn(PushTemplate(PUSH, routes.get("push_many", b"q", (b"",))))
    templates.learn(PopTemplate(POP, routes.get("pop_many", b"q", (b"",)), bulk(b""), b"$-1\r\n"))
    templates.learn(AckTemplate(ACK, routes.get("ack_many", b"q", ())))
    return templates


def run(templates, data):
    """How many bytes were taken, how many deals were made, and the items of the calls in order."""
    coalescer = Coalescer()
    taken, deals, _ = templates.run(data, Nobody(), coalescer)
    found = taken, deals, joined(coalescer)
    if templates.take_alone(data, Nobody(), alone := Coalescer()):
        assert (len(data), 1, joined(alone)) == found
    else:
        assert joined(alone) == []
    return found


def joined(coalescer):
    """The items of its calls, by their functions."""
    coalescer.take()
    return [(call.route.head.split(b"\r\n")[3], b"".join(call.items)) for call in coalescer.sent]


commands = st.one_of(
    st.sampled_from([b"", b"a", b"\r\n", b"$1\r\na\r\n", PUSH, PUSH + b"1\r\na\r\n", b"x" * 300]).map(
        lambda body: request("VALQ.PUSH", "q", body)
    ),
    st.just(POP),
    st.sampled_from([b"1", b"17-1", b"9223372036854775807-12"]).map(lambda name: request("VALQ.ACK", "q", name)),
)


def test_no_id_passes_for_two(templates):
    data = request("VALQ.ACK", "q", b"1\r\n$1\r\n2") * 2
    assert run(templates, data)[0] == 0


def test_what_is_alone_is_taken_if_it_is_whole(templates):
    sizes = [0, 1, 9, 10, 99, 100, 999, 1000, 1023]
    bodies = [body * size for size in sizes for body in (b"x", b"\r", b"\n", b"*")]
    ids = [b"1", b"17", b"17-1", b"1234567-12", b"9223372036854775807-12"]
    for whole in (*(PUSH + bulk(body)[1:] for body in bodies), POP, *(ACK + bulk(name)[1:] for name in ids)):
        coalescer = Coalescer()
        assert templates.take_alone(whole, Nobody(), coalescer), whole
        assert [call.deals[0][1:] for call in coalescer._unsent] in ([(1, None)], [(1, b"$-1\r\n")])
        for cut in (whole[:-1], whole[:-2] + b"\rx", whole + b"\n", whole + whole, whole[1:]):
            assert not templates.take_alone(cut, Nobody(), coalescer), cut
        run(templates, whole)


@given(st.lists(commands, min_size=1, max_size=12), st.integers(0, 400))
def test_whole_commands_are_taken_and_a_cut_one_is_left(templates, chosen, cut):
    whole = b"".join(chosen)
    data = whole[: max(1, len(whole) - cut)]
    taken, _, calls = run(templates, data)
    ends = [sum(map(len, chosen[: n + 1])) for n in range(len(chosen))]
    complete = [end for end in ends if end <= len(data)]
    assert taken == (complete[-1] if complete else 0)
    expected = {b"valq1_push_many": b"", b"valq1_ack_many": b""}
    pops = 0
    for command in chosen[: len(complete)]:
        if command == POP:
            pops += 1
        else:
            function = b"valq1_push_many" if command.startswith(PUSH) else b"valq1_ack_many"
            prefix = PUSH if command.startswith(PUSH) else ACK
            expected[function] += command[len(prefix) - 1 :]
    for function, arguments in expected.items():
        assert b"".join(items for name, items in calls if name == function) == arguments
    runs = b"".join(items for name, items in calls if name == b"valq1_pop_many").split(b"\r\n")
    assert sum(int(count) for count in runs[1::4]) == pops


@pytest.mark.parametrize(
    "data",
    [
        PUSH + b"01\r\na\r\n",
        PUSH + b"+1\r\na\r\n",
        PUSH + b"-1\r\n",
        PUSH + b"1x\r\na\r\n",
        PUSH + b"%d\r\n" % (MAX_BODY_BYTES + 1) + b"x" * (MAX_BODY_BYTES + 3),
        ACK + b"2\r\n01\r\n",
        ACK + b"3\r\n1-x\r\n",
        ACK + b"3\r\n1-0\r\n",
        ACK + b"2\r\n1-\r\n",
        ACK + b"0\r\n\r\n",
        (ACK + b"1\r\n1\r\n") + (ACK + b"1\r\nx\r\n"),
        b"*3\r\n$9\r\nVALQ.PUSH\r\n$1\r\nr\r\n$1\r\na\r\n",
        b"PING\r\n",
    ],
)
def test_what_is_not_plain_is_left_to_the_framer(templates, data):
    assert run(templates, data) == (0, 0, [])


def test_a_command_behind_an_unknown_one_is_left(templates):
    assert run(templates, POP + b"PING\r\n" + POP)[:2] == (len(POP), 1)


def test_a_short_prefix_and_too_many_lengths_are_not_learned():
    route = Routes(b"").get("pop_many", b"q", (b"",))
    templates = Templates(2)
    short = b"*2\r\n$8\r\nVALQ"
    assert len(short) < _HEAD
    templates.learn(PopTemplate(short, route, bulk(b""), b""))
    assert run(templates, short)[0] == 0
    pops = [request("VALQ.POP", "q" * (10_000 + length)) for length in range(MAX_LENGTHS + 1)]
    for pop in pops:
        templates.learn(PopTemplate(pop, route, bulk(b""), b""))
    assert [run(templates, pop)[0] > 0 for pop in pops] == [True] * MAX_LENGTHS + [False]


def test_no_body_passes_for_a_frame_in_a_queue_whose_name_looks_like_one():
    name = "*3"
    prefix = request("VALQ.PUSH", name, "")[:-6] + b"$"
    templates = Templates(2)
    templates.learn(PushTemplate(prefix, Routes(b"").get("push_many", name.encode(), (b"",))))
    data = request("VALQ.PUSH", name, prefix[:-1]) * 3
    taken, _, calls = run(templates, data)
    assert (taken, calls) == (0, [])


def learned(*commands):
    """Templates of a worker that has parsed each of these twice."""
    routes, templates = Routes(b""), Templates(2)
    for argv in [argv for argv in commands for _ in range(2)]:
        parsed = parse(argv, 2, MAX_BULK_BYTES)
        route = routes.get(parsed.merge.function, parsed.queues[0], (b"",))
        templates.learn_from(argv, parsed, route, MAX_BODY_BYTES)
    return templates


def push(body, *options):
    return [b"VALQ.PUSH", b"orders", body, *options]


OPTIONS = [
    (b"7",),
    (b"PRIORITY", b"5"),
    (b"PRIORITY", b"31"),
    (b"PRIORITY", b"0"),
    (b"DEDUP", b"key", b"UNTILDONE"),
    (b"HEADERS", b"1", b"a", b"$1\r\nb"),
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("body", [b"", b"a", b"\r\n", b"x" * 1500, b"$8\r\nPRIORITY\r\n$1\r\n5\r\n"])
def test_a_push_with_options_that_were_seen_asks_for_what_its_parse_does(options, body):
    templates = learned(*[push(b"another", *each) for each in OPTIONS])
    merge = parse(push(body, *options), 2, MAX_BULK_BYTES).merge
    data = request(*push(body, *options))
    function = b"valq1_" + merge.function.encode()
    assert run(templates, data) == (len(data), 1, [(function, b"".join(map(bulk, merge.items)))])
    assert all(run(templates, data[:size]) == (0, 0, []) for size in range(len(data)))
    assert run(templates, data + data[:-1])[:2] == (len(data), 1)


def test_a_push_with_other_options_is_left():
    templates = learned(push(b"a", b"PRIORITY", b"5"))
    for options in ((b"PRIORITY", b"6"), (b"priority", b"5"), (b"TTL", b"5"), (b"PRIORITY", b"55")):
        assert run(templates, request(*push(b"a", *options))) == (0, 0, [])
    assert run(templates, request(*push(b"a", b"PRIORITY", b"5")).replace(b"*5", b"*6"))[0] == 0


def test_options_are_learned_when_they_come_again():
    templates = Templates(2)
    argv = push(b"a", b"PRIORITY", b"5")
    parsed = parse(argv, 2, MAX_BULK_BYTES)
    route = Routes(b"").get(parsed.merge.function, parsed.queues[0], (b"",))
    for times_seen in range(1, 4):
        templates.learn_from(argv, parsed, route, MAX_BODY_BYTES)
        assert (run(templates, request(*argv))[1] == 1) is (times_seen > 1)


def test_options_that_are_known_push_out_no_others():
    commands = [push(b"a", b"DEDUP", b"%d" % number) for number in range(MAX_SUFFIXES)]
    templates = learned(*commands, *[commands[-1]] * 3)
    assert [run(templates, request(*command))[1] for command in commands] == [1] * MAX_SUFFIXES


def test_of_many_options_the_last_are_remembered():
    commands = [push(b"a", b"DEDUP", b"%d" % number) for number in range(MAX_SUFFIXES + 1)]
    templates = learned(*commands)
    assert [run(templates, request(*command))[1] for command in commands] == [0] + [1] * MAX_SUFFIXES


def test_one_client_takes_no_more_than_its_share_at_once(templates):
    data = request("VALQ.PUSH", "q", "x" * 100) * 800
    taken, _, _ = run(templates, data)
    assert MAX_BYTES_AT_ONCE <= taken < len(data)
    assert run(templates, data[taken:])[0] == len(data) - taken


def test_a_body_over_the_limit_is_left():
    templates = Templates(2)
    templates.learn(PushTemplate(PUSH, Routes(b"").get("push_many", b"q", (b"",)), 10))
    assert run(templates, request("VALQ.PUSH", "q", "x" * 10))[1] == 1
    assert run(templates, request("VALQ.PUSH", "q", "x" * 11))[1] == 0


def test_whole_requests_are_remembered_within_bounds():
    templates = Templates(2)
    parsed = parse([b"VALQ.POP", b"q", b"BLOCK", b"5"], 2, MAX_BULK_BYTES)
    short, long = b"x" * MAX_WHOLE_BYTES, b"x" * (MAX_WHOLE_BYTES + 1)
    templates.learn_whole(short, parsed)
    templates.learn_whole(long, parsed)
    assert templates.seen_whole(short) is parsed
    assert templates.seen_whole(long) is None
    for number in range(MAX_TEMPLATES):
        templates.learn_whole(b"%d" % number, parsed)
    assert templates.seen_whole(short) is None  # one too many: all are forgotten
    assert templates.seen_whole(b"%d" % (MAX_TEMPLATES - 1)) is parsed


def test_the_template_for_which_all_others_are_forgotten_is_known():
    routes, templates = Routes(b""), Templates(2)
    for number in range(MAX_TEMPLATES + 1):
        argv = [b"VALQ.POP", b"orders%04d" % number]
        parsed = parse(argv, 2, MAX_BULK_BYTES)
        templates.learn_from(argv, parsed, routes.of(parsed), MAX_BODY_BYTES)
    assert run(templates, request("VALQ.POP", "orders0000"))[1] == 0
    assert run(templates, request(*argv))[1] == 1


def test_all_options_together_are_bounded():
    routes, templates = Routes(b""), Templates(2)
    for number in range(MAX_TEMPLATES + 500):
        argv = [b"VALQ.PUSH", b"orders%d" % (number // 8), b"a", b"DEDUP", b"%d" % number]
        parsed = parse(argv, 2, MAX_BULK_BYTES)
        for _ in range(2):
            templates.learn_from(argv, parsed, routes.of(parsed), MAX_BODY_BYTES)
    assert run(templates, request("VALQ.PUSH", "orders0", "a", "DEDUP", "0"))[1] == 0  # all were forgotten
    assert run(templates, request(*argv))[1] == 1


def test_a_client_that_pops_much_gets_a_share_at_a_time(templates):
    coalescer = Coalescer()
    data = POP * (MAX_ITEMS + 100)
    taken, _, is_share = templates.run(data, Nobody(), coalescer)
    assert (taken, is_share) == (MAX_ITEMS * len(POP), True)
    assert templates.run(POP * 10, Nobody(), coalescer)[2] is False


def test_options_that_were_seen_once_are_bounded():
    templates, route = Templates(2), Routes(b"").get("push_records", b"orders", (b"",))
    for number in [*range(MAX_TEMPLATES + 1), 0]:
        argv = push(b"a", b"DEDUP", b"%d" % number)
        templates.learn_from(argv, parse(argv, 2, MAX_BULK_BYTES), route, MAX_BODY_BYTES)
    assert run(templates, request(*argv))[1] == 0  # that it came before is forgotten


def test_long_options_are_not_remembered():
    argv = push(b"a", b"DEDUP", b"x" * MAX_SUFFIX_BYTES)
    assert run(learned(argv), request(*argv))[1] == 0

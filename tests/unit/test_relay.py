"""Simple requests are told from all else, byte by byte; and where the replies to each client's end, however cut."""

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.servers import request
from valqd.protocol import relay
from valqd.protocol.coalescer import Coalescer
from valqd.protocol.lone_calls import Listener
from valqd.protocol.relay import COMMANDS, MAX_REQUEST_BYTES, MAX_REQUESTS, RelayCall, RelayReplies, cut_simple

arguments = st.sampled_from(
    [b"", b"k", b"1", b"+", b"$1\r\nk", b"*1\r\n$4\r\nPING\r\n", b"\r\n", b"x" * 99, b"x" * 600]
)
requests = st.one_of(
    st.tuples(st.just(b"GET"), arguments),
    st.tuples(st.just(b"SET"), arguments, arguments),
    st.tuples(st.just(b"del"), arguments, arguments, arguments),
    st.tuples(st.sampled_from([b"LRANGE", b"Get", b"PING"]), arguments, arguments, arguments),
)


def as_specified(data):
    """The simple requests in canonical form at the start of the data."""
    requests, at = [], 0
    while head := re.compile(rb"\*([1-9]\d*)\r\n").match(data, at):
        end = head.end()
        argv = []
        for _ in range(int(head[1])):
            size = re.compile(rb"\$(0|[1-9]\d*)\r\n").match(data, end)
            if size is None:
                return requests
            end = size.end() + int(size[1]) + 2
            argv.append(data[size.end() : end - 2])
            if data[end - 2 : end] != b"\r\n":
                return requests
        name = argv[0].decode("latin-1")
        wanted = COMMANDS.get(name.upper()) if name in (name.upper(), name.lower()) else None
        if wanted is None or not (len(argv) == wanted or len(argv) >= -wanted > 0):
            return requests
        requests.append(data[at:end])
        at = end
    return requests


@given(st.lists(requests, min_size=1, max_size=3), st.integers(1, 5), st.data())
def test_only_what_is_whole_simple_and_in_canonical_form_is_taken(commands, times, data):
    chunk = b"".join(request(*argv) for argv in commands) * times
    assert_as_specified(chunk)
    at = data.draw(st.integers(0, len(chunk)))
    instead = data.draw(st.sampled_from([b"", b"x", b"\r", b"\n", *(bytes([c]) for c in b"*$+=(~|>%:_#,-0")]))
    changed = chunk[:at] + instead + chunk[at + data.draw(st.integers(0, 2)) :]
    assert_as_specified(changed)


def cut(data, most=MAX_REQUEST_BYTES):
    """The requests that are taken."""
    requests = []
    for call in cut_simple(data, most):
        assert 0 < call.count <= MAX_REQUESTS
        [piece] = call.encode()
        assert len(as_specified(piece)) == call.count
        requests += as_specified(piece)
        assert len(piece) == call.size == sum(map(len, requests[-call.count :]))
    return requests


def assert_as_specified(data):
    """A large one, and what follows it, is taken only if nothing else is there."""
    taken, most = cut(data), as_specified(data)
    left = most[len(taken) :]
    assert most == taken + left
    assert not left or len(left[0]) > 511


def test_a_string_of_another_type_is_no_argument():
    for argument in (b"+k", b"=5\r\ntxt:k", b"(1", b":1", b"*1\r\n$1\r\nk", b"$1\r\nkx\n$1\r\nk"):
        for start in (b"*", b"~", b">", b"|", b"%"):
            data = start + b"2\r\n$3\r\nGET\r\n" + argument + b"\r\n"
            assert cut(data) == [], data


def test_requests_of_all_sizes_are_told_alike_by_the_pattern_and_without():
    for size in (0, 1, 9, 10, 99, 100, 101, 499, 510, 511, 512, 1000, 30_000):
        whole = request("SET", "k", "v" * size)
        assert cut(whole) == [whole]
        assert cut(whole[:-1]) == []
        assert relay.is_all_simple(whole) == (size <= 511)
    for keys in range(1, 20):
        whole = request("del", *["k"] * keys)
        assert cut(whole * 3) == [whole] * 3
    one = request("GET", "k")
    for count in (1, MAX_REQUESTS, MAX_REQUESTS + 1, 10 * MAX_REQUESTS):
        assert cut(one * count) == [one] * count
    assert [cut(one * 9, len(one) * 2 + more) for more in (-1, 0, 1)] == [[one], [one] * 2, [one] * 2]


REPLIES = [
    b"+OK\r\n", b"$-1\r\n", b":-1\r\n", b"$0\r\n\r\n", b"*0\r\n", b"-ERR no\r\n", b"$3\r\nvar\r\n",
    b"*2\r\n$1\r\na\r\n:1\r\n", b"$2\r\n\r\n\r\n", b"_\r\n", b",1.5\r\n", b"%1\r\n$1\r\na\r\n*1\r\n_\r\n",
    b"$600\r\n%b\r\n" % (b"+" * 600),
]  # fmt: skip
replies = st.lists(st.sampled_from(REPLIES), min_size=1, max_size=4)


@given(st.lists(replies, min_size=1, max_size=6), st.data())
def test_each_gets_its_own_replies_however_they_are_cut(calls, data):
    coalescer = Coalescer()
    got = []
    for number, answers in enumerate(calls):
        call = RelayCall(request("GET", "k") * len(answers), len(answers))
        coalescer.add(Listener(lambda answer, number=number: got.append((number, answer))), call)
    coalescer.take()
    stream = b"".join(map(b"".join, calls))
    cuts = data.draw(st.sets(st.integers(0, len(stream)), max_size=6))
    feeder = RelayReplies()
    assert all(feeder.feed(stream[start:end], coalescer) for start, end in pairwise(sorted({0, *cuts, len(stream)})))
    assert got == [(number, b"".join(answers)) for number, answers in enumerate(calls)]


def test_one_large_reply_is_told_and_many_small_ones_are_not():
    for answers, is_well in (
        ([b"$30000\r\n%b\r\n" % (b"v" * 30_000)] * 9, True),
        ([b"$70000\r\n%b\r\n" % (b"v" * 70_000)], False),
    ):
        coalescer = Coalescer()
        coalescer.add(Listener(), RelayCall(b"", len(answers)))
        coalescer.take()
        assert RelayReplies().feed(b"".join(answers), coalescer) == is_well


def test_the_pattern_knows_every_simple_command():
    for name, arguments in COMMANDS.items():
        for count in range(-arguments, 6) if arguments < 0 else [arguments]:
            for spelling in (name, name.lower()):
                whole = request(spelling, *["k"] * (count - 1))
                assert relay.is_all_simple(whole)
                assert not relay.is_all_simple(whole.replace(b"k", b"", 1))


def test_of_large_ones_several_are_taken_only_within_the_share():
    whole = request("SET", "k", "v" * 1000)
    assert cut(whole, 128) == [whole]
    assert cut(whole * 3, 128) == []
    assert cut(whole * 3) == [whole] * 3

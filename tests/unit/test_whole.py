"""Chunks that are whole RESP values are told from those that are cut, wherever they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.servers import request
from valqd.protocol import foreign, relay
from valqd.protocol.private_replies import PrivateReplies
from valqd.protocol.whole import WholeParser, may_be_huge

requests = st.lists(
    st.lists(st.sampled_from(["", "a", "#t", "VALQ.POP"]), min_size=1, max_size=4), min_size=1, max_size=4
)


@given(requests, st.data())
def test_a_cut_chunk_is_not_whole_and_nothing_of_it_is_remembered(commands, data):
    parser = WholeParser()
    whole = b"".join(request(*argv) for argv in commands)
    ends = {len(b"".join(request(*argv) for argv in commands[:count])) for count in range(len(commands) + 1)}
    cut = data.draw(st.integers(1, len(whole)))
    likely = data.draw(st.integers(0, 5))
    assert (parser.parse(whole[:cut], likely) is not None) == (cut in ends)
    assert parser.parse(whole, likely) == [[arg.encode() for arg in argv] for argv in commands]


@pytest.mark.parametrize(
    "data",
    [
        b"#t\r\n*3\r\n$1\r\na\r\n", b"#t\r\n$5\r\nab", b"*1\r\n", b"*2\r\n*1\r\n$1\r\na\r\n", b"+O", b"*x\r\n",
    ],
)  # fmt: skip
def test_what_is_not_whole_or_not_sane_is_refused(data):
    parser = WholeParser()
    for likely in range(4):
        assert parser.parse(data, likely) is None
        assert parser.parse(b"+OK\r\n#t\r\n", likely) == [b"OK", True]
        if likely > 1:
            assert parser.parse(b"+OK\r\n" * likely + data, likely) is None
            assert parser.parse(b"+OK\r\n" * likely + b"#t\r\n" + data, likely) is None
            assert parser.parse(b"+OK\r\n" * 2, likely) == [b"OK"] * 2


@pytest.mark.parametrize(
    "data",
    [
        b"*2147483647\r\n", b"*1\r\n$1\r\na\r\n*1000000\r\n", b"*1\r\n>2000000000\r\n", b"*1\r\n~4000000000\r\n",
        b"*2\r\n$3\r\nGET\r\n~99999999\r\n", b"|100000000\r\n", b"*1\r\n$1\r\na\r\n|99999\r\n", b"*99999\r\n" * 1000,
        b"*9999\r\n" * 1000, b"*9999\r\n$0\r\n\r\n" * 1000, b"*1\r\n$4\r\nPING\r\n" + b"|999\r\n$0\r\n\r\n" * 100,
    ],
)  # fmt: skip
def test_no_room_is_made_for_what_is_only_announced(data):
    assert may_be_huge(data)
    assert foreign.count_plain(data, 2) == 0
    assert relay.cut_simple(data, relay.MAX_REQUEST_BYTES) == []


@pytest.mark.parametrize("start", [b"%1\r\n:0\r\n", b"|1\r\n:0\r\n", b"|1\r\n$4\r\nPING\r\n", b"~1\r\n"])
def test_maps_sets_and_attributes_are_no_requests(start):
    foreign.remember(b"PING")
    data = b"*1\r\n$4\r\nPING\r\n" + start + b"$4\r\nPING\r\n"
    assert foreign.count_plain(data, 2) == 0
    assert foreign.count_plain(data[:14], 1) == 1


def test_a_reply_cut_between_two_elements_is_still_awaited():
    private = PrivateReplies()
    private.expect(1)
    private.expect_special(lambda raw: b"<" + raw + b">")
    assert private.feed(b"*2\r\n$1\r\na\r\n") == b"*2\r\n$1\r\na\r\n"
    assert (private.outstanding, private.at_boundary) == (2, False)
    assert private.feed(b"$1\r\nb\r\n+OK\r\n") == b"$1\r\nb\r\n<+OK\r\n>"
    assert (private.outstanding, private.at_boundary) == (0, True)


def test_what_holds_all_that_it_announces_is_not_huge():
    for count in (99, 100, 999, 1000, 9999):
        assert not may_be_huge(b"*%d\r\n%b" % (count, b"$0\r\n\r\n" * count))

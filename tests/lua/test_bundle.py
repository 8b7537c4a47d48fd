"""The bundle: one library from many files, whose headers do not lie."""

import hashlib
import re

import pytest

from valqd import config
from valqd.commands import create, nack, purge, push, values
from valqd.commands.spec import OneOf
from valqd.errors import QUEUE_CODES
from valqd.io import registration, sweeper
from valqd.lua import bundle

CONTRACT = {
    "create", "update", "delete", "list", "info", "purge", "push", "push_many", "push_records", "pop",
    "pop_many", "mpop", "ack", "ack_many", "nack", "nack_many", "extend", "extend_many", "peek", "show", "scan",
    "del", "cancel", "pause", "redrive", "echo", "fence", "due", "sweep", "arm", "disarm",
}  # fmt: skip


def test_contract_is_complete():
    assert set(bundle.function_sources()) == CONTRACT


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_header_names_what_the_function_takes_and_gives(name):
    source = bundle.function_sources()[name]
    header = bundle.header(name, source)
    assert header["Flags"] in ("allow-oom", "deny-oom", "no-writes", "no-writes allow-cross-slot-keys")
    assert ("keys" in source.split("local function call")[1].split("\n", 1)[1]) == (header["KEYS"] != "none")
    errors = set(header["Errors"].split())
    raised = set(re.findall(r"reply\.error\('([A-Z]+)'", source))
    assert raised <= errors
    assert ("queue.need" in source or "queue.missing" in source) <= ("NOQUEUE" in errors)


#: What is no code: comments and strings, whichever begins first.
COMMENT_OR_STRING = re.compile(r"""--\[\[.*?\]\]|--[^\n]*|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|\[\[.*?\]\]""", re.DOTALL)


def helpers():
    """Each helper file's code without comments and strings, and what its header says it requires."""
    for name, source in bundle.helper_sources().items():
        required = re.search(r"^-- requires: (.+)$", source, re.MULTILINE)[1].split(", ")
        yield name, COMMENT_OR_STRING.sub(" ", source), set(required) - {"nothing"}


def test_helpers_require_what_they_use_and_nothing_else():
    all_helpers = list(helpers())
    names = [name for name, _, _ in all_helpers]
    for name, code, required in all_helpers:
        used = {other for other in names if re.search(rf"(?<![\w.]){other}\.", code)}
        assert used - {name} == required - {name}, name


def test_a_library_that_differs_has_a_revision_of_its_own():
    # Daemons replace a library of a lower revision, and never one of a higher: a change that keeps the number would be
    # replaced by older daemons.  After a change: REVISION + 1 if the last one was released, and the new digest here.
    digest = hashlib.sha256(bundle.whole_source().encode()).hexdigest()
    assert (bundle.REVISION, digest[:16]) == (2, "6cc2d7428c23f6a6")


def test_only_what_adds_is_refused_at_maxmemory():
    flags = {name: bundle.header(name, source)["Flags"] for name, source in bundle.function_sources().items()}
    assert {name for name, flag in flags.items() if flag == "deny-oom"} == {
        "create",
        "push",
        "push_many",
        "push_records",
    }


def test_error_codes_are_those_in_the_source():
    source = bundle.whole_source()
    raised = set(re.findall(r"reply\.error\('([A-Z]+)'", source)) | set(
        re.findall(r"nil, (?:\w+, )?'([A-Z]+)'", source)
    )
    assert raised | {"FULL"} == QUEUE_CODES | {"ERR"}


PURGED_STATES = {
    option.token.lower() for choice in purge.SPEC.arguments if isinstance(choice, OneOf) for option in choice.options
}


@pytest.mark.parametrize(
    ("pattern", "known_to_python"),
    [
        (r"record\.MAX_PRIORITY = (\d+)", {str(push.MAX_PRIORITY)}),
        (r"local MOST_IN_ORDER = (\d+)", {str(registration.MOST_IN_ORDER)}),
        (r"local MAX_HEADERS = (\d+)", {str(push.MAX_HEADERS_IN_ALL)}),
        (r"local MAX_HEADER_BYTES = (\d+)", {str(push.MAX_HEADER_BYTES)}),
        (r"local MAX_REASON_BYTES = (\d+)", {str(nack.MAX_REASONS_BYTES)}),
        (r"local MOST_AT_ONCE = (\d+)", {values.BATCH.range.split()[-1], values.PAGE.range.split()[-1]}),
        (r"keys\[1\] ~= '(valq::\w+)'", {sweeper._DAEMONS_KEY.decode()}),
        (r"need_or_create, key, '([\d:]+)'", {config.load([], {}).auto_create_argument.decode()}),
        (r"need_or_create, key, '([\d:]+)'", {b":".join(create._DEFAULTS.values()).decode()}),
        (r"(?<=  )(\w+) = \{'[\w', ]+\},", PURGED_STATES),
        (r"tonumber\(given\.(\w+)\)|= given\.(\w+)", {*push._PLAIN_OPTIONS, "dedup_window", "dedup_until_done"}),
    ],
)
def test_what_python_and_the_functions_both_spell_out_is_the_same(pattern, known_to_python):
    found = {match[match.lastindex] for match in re.finditer(pattern, bundle.whole_source())}
    assert found == known_to_python


def test_called_commands_are_those_in_the_source():
    source = bundle.whole_source()
    used = set(re.findall(r"server\.p?call\('([A-Z]+)'", source))
    used |= set(re.findall(r"'([ZH][A-Z]+)'", source)) - {"HEADER"}
    assert used == set(bundle.CALLED_COMMANDS)


def test_production_source_cannot_move_the_clock():
    assert "test_clock" not in bundle.whole_source()
    assert "valq1_test_clock" in bundle.whole_source(test_clock=True)


def test_first_lines_name_library_and_revision():
    assert bundle.whole_source().splitlines()[:2] == ["#!lua name=valq1", f"-- revision: {bundle.REVISION}"]


@pytest.mark.parametrize(
    ("helpers", "problem"),
    [
        ({"a": "-- requires: b\n", "b": "-- requires: a\n"}, "requires itself"),
        ({"a": "-- requires: b\n"}, "no lib/b.lua"),
        ({"a": "local a = {}\n"}, "does not say"),
    ],
)
def test_bundle_refuses(helpers, problem):
    with pytest.raises(bundle.BundleError, match=problem):
        bundle._in_order(helpers)


def test_what_a_helper_keeps_to_itself_is_not_seen_by_others(link, monkeypatch):
    helpers = bundle.helper_sources()
    helpers["queue"] += "\nlocal hidden = 1\n"
    helpers["life"] += "\nlocal seen = hidden\n"
    monkeypatch.setattr(bundle, "helper_sources", lambda: helpers)
    reply = link.call("FUNCTION", "LOAD", "REPLACE", bundle.whole_source.__wrapped__())
    assert "nonexistent global variable 'hidden'" in str(reply)


def test_helper_that_does_not_define_its_module_is_refused(monkeypatch):
    monkeypatch.setattr(bundle, "helper_sources", lambda: {"a": "-- requires: nothing\nlocal b = {}\n"})
    with pytest.raises(bundle.BundleError, match=r"lib/a\.lua does not define a"):
        bundle.whole_source.__wrapped__()


@pytest.mark.parametrize("line", ["Flags", "KEYS", "ARGV", "Returns", "Errors", "Complexity"])
def test_header_without_a_line_is_refused(line):
    source = re.sub(rf"^-- {line}:.*\n", "", bundle.function_sources()["ack"], flags=re.MULTILINE)
    with pytest.raises(bundle.BundleError, match=line):
        bundle.header("ack", source)

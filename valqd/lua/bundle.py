"""Joins the Lua files into the one library that is loaded into the backend.

Helpers (``lib/``) name what they use in a ``-- requires:`` line and come in that order; each function file defines a
local ``call`` and says in its header what it takes and gives.  Each file is a block of its own: of a helper others see
its module alone.  A cycle, an unknown helper or a header that lacks a line is a BundleError: the library is checked
whenever it is built.

Functions run with the rights of the user that calls them.  The smallest rule for a user of the queue orders is
``~valq:{orders}:*``, the command FCALL, and CALLED_COMMANDS, which are all that the library calls.
"""

from __future__ import annotations

import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.resources import files

from valqd.errors import QUEUE_CODES
from valqd.lua import FUNCTION_PREFIX, LIBRARY_NAME

#: Which of two builds of the same contract is newer: a daemon never replaces a library of a higher revision.
REVISION = 2

#: Commands that the library calls; all of them are in Valkey 7.2, as it calls them.
CALLED_COMMANDS = (
    "DEL", "EXISTS", "HDEL", "HEXISTS", "HGET", "HINCRBY", "HKEYS", "HLEN", "HMGET", "HSCAN", "HSET", "HSTRLEN",
    "LRANGE", "LSET", "RPUSH", "SCAN", "SET", "TIME", "UNLINK", "ZADD", "ZCARD", "ZCOUNT", "ZMSCORE", "ZRANGE",
    "ZRANGEBYSCORE", "ZREM", "ZREVRANGE", "ZSCORE",
)  # fmt: skip

_HEADER_LINES = ("Flags", "KEYS", "ARGV", "Returns", "Errors", "Complexity")
_TEST_CLOCK = f"""
server.register_function('{FUNCTION_PREFIX}test_clock', function(_, args)
  clock.offset_ms = tonumber(args[1])
  if args[2] == 'STILL' then
    clock.exact = function() return clock.offset_ms end
  end
  return {{ok = 'OK'}}
end)
"""


class BundleError(Exception):
    """A Lua file breaks the rules of the bundle."""


def _sources(folder: str) -> dict[str, str]:
    entries = (files(__package__) / folder).iterdir()
    lua = [entry for entry in entries if entry.name.endswith(".lua")]
    return {entry.name.removesuffix(".lua"): entry.read_text(encoding="utf-8") for entry in lua}


def _in_order(helpers: dict[str, str]) -> list[str]:
    """Names of helpers, each after those it requires."""
    requires: dict[str, list[str]] = {}
    for name in sorted(helpers):
        found = re.search(r"^-- requires: (.+)$", helpers[name], re.MULTILINE)
        if not found:
            raise BundleError(f"lib/{name}.lua does not say what it requires")
        requires[name] = [] if found[1] == "nothing" else found[1].split(", ")
        for other in requires[name]:
            if other not in helpers:
                raise BundleError(f"no lib/{other}.lua")
    try:
        return list(TopologicalSorter(requires).static_order())
    except CycleError as error:
        raise BundleError(f"lib/{error.args[1][0]}.lua requires itself") from error


def header(name: str, source: str) -> dict[str, str]:
    """The header of functions/<name>.lua: each line by its name.  Raises BundleError."""
    if not source.startswith(f"-- {name}: "):
        raise BundleError(f"functions/{name}.lua does not begin with its name and purpose")
    comment = source[: source.index("local function call")]
    found = {}
    for line in _HEADER_LINES:
        match = re.search(rf"^-- {line}: (.+)$", comment, re.MULTILINE)
        if not match:
            raise BundleError(f"functions/{name}.lua says nothing of {line}")
        found[line] = match[1]
    unknown = set(found["Errors"].split()) - QUEUE_CODES - {"ERR", "none", "any"}
    if unknown:
        raise BundleError(f"functions/{name}.lua names unknown errors {unknown}")
    return found


def helper_sources() -> dict[str, str]:
    """The source of each helper file, by its name."""
    return _sources("lib")


def function_sources() -> dict[str, str]:
    """The source of each function, by its name without prefix."""
    return dict(sorted(_sources("functions").items()))


def _without_comments(source: str) -> str:
    """Lines that do something: the library is kept, replicated and compared as text."""
    lines = (line.rstrip() for line in source.splitlines())
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("--"))


def _module(name: str, source: str) -> str:
    """A helper file, of which others see the module alone: its own locals end with its block."""
    declaration = f"local {name} = "
    if declaration not in source:
        raise BundleError(f"lib/{name}.lua does not define {name}")
    body = _without_comments(source).replace(declaration, f"{name} = ", 1)
    return f"local {name}\ndo\n{body}\nend"


@cache
def whole_source(test_clock: bool = False) -> str:
    """The text for FUNCTION LOAD.  ``test_clock`` adds a function that moves time, or stops it, for tests."""
    helpers = helper_sources()
    parts = [f"#!lua name={LIBRARY_NAME}", f"-- revision: {REVISION}"]
    parts += [_module(name, helpers[name]) for name in _in_order(helpers)]
    for name, source in function_sources().items():
        flags = header(name, source)["Flags"]
        listed = ", ".join(f"'{flag}'" for flag in flags.split() if flag != "deny-oom")
        parts.append(
            f"do\n{_without_comments(source)}\nserver.register_function{{function_name = '{FUNCTION_PREFIX}{name}', "
            f"callback = guard.wrap(call), flags = {{{listed}}}}}\nend"
        )
    if test_clock:
        parts.append(_TEST_CLOCK)
    return "\n".join(parts) + "\n"

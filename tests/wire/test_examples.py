"""The examples of docs/commands.md come out as they are shown there."""

import os
import re
import shlex
import subprocess

import pytest

from tests.servers import CLI, Connection, Valkey, Valqd
from valqd.commands.table import COMMANDS

UP_TO_14 = " ".join(map(str, range(1, 15)))
SEVEN = ["CREATE orders", *["PUSH orders hello"] * 7, "POP orders COUNT 7", "NACK orders 7 FATAL"]
#: What has happened before the example of a command; before the others, nothing.
BEFORE = {
    "update": ["CREATE orders"],
    "delete": ["CREATE orders"],
    "list": ["CREATE mails", "CREATE orders"],
    "info": ["MPUSH orders 3 a b c", "POP orders"],
    "purge": ["MPUSH orders 12" + " x" * 12, "POP orders COUNT 12", f"NACK orders {UP_TO_14} FATAL"],
    "pause": ["CREATE orders"],
    "mpush": ["MPUSH orders 3 a b c"],
    "pop": ["PUSH orders hello"],
    "mpop": ["MPUSH orders 2 sooner later", "POP orders"],
    "ack": ["MPUSH orders 2 a b", "POP orders"],
    "nack": ["MPUSH orders 3 a b c", "POP orders COUNT 3"],
    "extend": ["MPUSH orders 3 a b c", "POP orders COUNT 3", "ACK orders 1-1"],
    "del": ["MPUSH orders 5 a b c d e"],
    "cancel": ["MPUSH orders 6 a b c d e f"],
    "peek": SEVEN,
    "show": SEVEN[:-2],
    "scan": SEVEN,
    "redrive": [
        "CREATE retries",
        "MPUSH orders 14" + " x" * 14,
        "POP orders COUNT 14",
        f"NACK orders {UP_TO_14} FATAL",
    ],
}


@pytest.fixture(scope="module")
def empty():
    """A Valkey of this module's own, and a daemon."""
    with Valkey() as valkey, Valqd(valkey.url) as daemon:
        yield valkey, daemon


def run(port, line) -> str:
    """What the command line client shows a person, without what only lines up columns and brackets."""
    assert CLI, "install valkey-tools or redis-tools"
    command = [CLI, "-3", "-p", str(port), *shlex.split(line)]
    environment = {**os.environ, "FAKETTY": "1"}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=True).stdout
    return aligned(shown)


def aligned(shown: str) -> str:
    shown = re.sub(r"^ +", "", shown.strip(), flags=re.MULTILINE)
    return re.sub(r"(?<=\d\)) +", " ", re.sub(r"\(integer\) 1\d{12}$", "(integer) <unix ms>", shown))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_example_of(empty, command):
    valkey, daemon = empty
    with Connection(valkey.port) as direct:
        direct.call("FLUSHALL")
    for line in BEFORE.get(command.name, []):
        assert "(error)" not in run(daemon.port, "VALQ." + line), line
    for sent, shown in command.example:
        start, cut, _ = aligned(shown).partition("...")
        got = run(daemon.port, sent)
        assert got[: len(start)] == start if cut else got == start, sent

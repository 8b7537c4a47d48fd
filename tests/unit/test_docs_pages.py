"""What the pages say of lists that the code has is the same there; the container's settings are there, too."""

import ast
import re
from pathlib import Path

import pytest

from valqd.commands.help_text import help_lines
from valqd.commands.introspection import command_doc
from valqd.commands.table import COMMANDS
from valqd.commands.values import ID
from valqd.config import load
from valqd.errors import PASSING_ERRORS

ROOT = Path(__file__).parent.parent.parent
TAKES_RECEIPTS = [
    command.name for command in COMMANDS if any(getattr(argument, "type", None) is ID for argument in command.arguments)
]


def test_the_worker_of_the_docs_sends_again_what_the_daemon_waits_for():
    (listed,) = re.findall(r"^PASSING = (\(.*\))$", (ROOT / "docs/delivery.md").read_text(), re.MULTILINE)
    passing = {error[1:-1].decode() for error in PASSING_ERRORS}
    told = set(map(str.strip, ast.literal_eval(listed)))
    assert told == passing - {"LOADING"}  # which valkey-py makes a ConnectionError


def test_all_commands_on_deliveries_take_receipts():
    assert TAKES_RECEIPTS == ["ack", "nack", "extend", "del", "cancel", "show"]


@pytest.mark.parametrize("name", TAKES_RECEIPTS)
def test_a_receipt_is_shown_wherever_one_is_taken(name):
    assert f"VALQ.{name.upper()} queue id|receipt" in help_lines(name.encode())[0]
    _, docs = command_doc(b"valq." + name.encode())
    (argument,) = [each for each in docs["arguments"] if each["name"] == "id"]
    assert argument["type"] == "oneof"
    assert [(kind["type"], kind["display_text"]) for kind in argument["arguments"]] == [
        ("string", "id"),
        ("string", "receipt"),
    ]


def test_alerts_are_on_counts_that_the_script_prints():
    page = (ROOT / "docs/operating.md").read_text()
    (script,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (alerts,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (reply,) = [command.reply for command in COMMANDS if command.name == "info"]
    fields = set(re.findall(r"\b\w+_(?:msgs|ms|total|clients)\b", reply))
    (gauges,) = re.findall(r"^GAUGES = (\(.*\))$", script, re.MULTILINE)
    assert set(ast.literal_eval(gauges)) <= fields
    watched = set(re.findall(r"\bvalq_(\w+)", alerts))
    assert watched
    assert watched <= {*ast.literal_eval(gauges), *(field for field in fields if field.endswith("_total"))}


@pytest.mark.parametrize("path", ["Dockerfile", "config/compose.yaml"])
def test_settings_of_containers_are_settings(path):
    text = (ROOT / path).read_text()
    found = re.findall(r"^\s*(?:ENV )?(VALQD_[A-Z_]+)[=:] ?\"?([^\s\"]+)", text, re.MULTILINE)
    assert found
    for name, value in found:
        load([], {name: value})

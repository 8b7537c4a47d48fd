"""The clients people have: each does the life of a message through valqd."""

import asyncio
import contextlib
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import glide
import pytest
import redis
import valkey
import valkey.asyncio

from tests.servers import CLI
from tests.wire.expect import blocked

ROOT = Path(__file__).parent.parent.parent


def as_dict(reply):
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


def life(run, queue):
    """``run(*words)`` sends one command; map replies may be lists."""
    assert run("VALQ.PUSH", queue, "work") == b"1"
    message = as_dict(run("VALQ.POP", queue, "BLOCK", "1000"))
    assert message[b"body"] == b"work"
    assert message[b"attempts"] == 1
    assert run("VALQ.NACK", queue, message[b"receipt"]) == 1
    again = as_dict(run("VALQ.POP", queue))
    assert again[b"receipt"] == b"1-2"
    assert run("VALQ.ACK", queue, message[b"receipt"]) == 0
    assert run("VALQ.ACK", queue, again[b"receipt"]) == 1
    assert run("VALQ.POP", queue) is None
    assert as_dict(run("VALQ.INFO", queue))[b"acked_total"] == 1


def valkey_client(port, resp):
    return valkey.Valkey(port=port, protocol=resp)


def redis_client(port, resp):
    return redis.Redis(port=port, protocol=resp)


@pytest.mark.parametrize("library", [valkey.Valkey, redis.Redis], ids=["valkey-py", "redis-py"])
def test_synchronous_clients(library, valqd, queue, resp):
    with library(port=valqd.port, protocol=resp) as client:
        life(client.execute_command, queue)


def test_clients_that_only_use_queues_hold_no_connection_of_their_own(valkey, valqd, queue, resp):
    with contextlib.ExitStack() as stack:
        direct = stack.enter_context(valkey_client(valkey.port, resp))
        before = direct.info("clients")["connected_clients"]
        for library in [valkey_client, redis_client] * 10:
            client = stack.enter_context(library(valqd.port, resp))
            client.execute_command("VALQ.PUSH", queue, "x")
        assert direct.info("clients")["connected_clients"] <= before + 1  # one may ask for the default user's password


def test_what_died_into_another_queue_is_sent_home_as_the_docs_say(valqd, queue):
    _, code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/delivery.md").read_text(), re.DOTALL)
    dead = f"{queue}-dead"
    with valkey.Valkey(port=valqd.port) as client:
        run = client.execute_command
        run("VALQ.CREATE", queue, "DLQ", dead)
        run("VALQ.PUSH", queue, "plain")
        run("VALQ.PUSH", queue, "headed", "HEADERS", 1, "tenant", "7")
        for _ in range(2):
            run("VALQ.NACK", queue, as_dict(run("VALQ.POP", queue))[b"receipt"], "FATAL")
        exec(code.replace('"q2"', repr(dead)), {"itertools": itertools, "valkey": client})
        back = [as_dict(run("VALQ.POP", queue)) for _ in range(2)]
        assert [message[b"body"] for message in back] == [b"plain", b"headed"]
        assert b"headers" not in back[0]
        assert as_dict(back[1][b"headers"]) == {b"tenant": b"7"}
        assert as_dict(run("VALQ.INFO", dead))[b"msgs"] == 0


def test_what_its_queue_has_no_room_for_stays_in_the_other_though_sent_home(valqd, queue):
    _, code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/delivery.md").read_text(), re.DOTALL)
    dead = f"{queue}-dead"
    with valkey.Valkey(port=valqd.port) as client:
        run = client.execute_command
        run("VALQ.CREATE", queue, "DLQ", dead, "MAXLEN", 1)
        run("VALQ.PUSH", queue, "x")
        run("VALQ.NACK", queue, as_dict(run("VALQ.POP", queue))[b"receipt"], "FATAL")
        run("VALQ.PUSH", queue, "another")
        with pytest.raises(valkey.ResponseError, match="FULL "):
            exec(code.replace('"q2"', repr(dead)), {"itertools": itertools, "valkey": client})
        assert as_dict(run("VALQ.INFO", dead))[b"msgs"] == 1


def test_pipelines_and_transactions(valqd, queue):
    with valkey.Valkey(port=valqd.port) as client:
        with client.pipeline(transaction=False) as pipe:
            for number in range(100):
                pipe.execute_command("VALQ.PUSH", queue, number)
                pipe.incr(f"{queue}:pushed")
            replies = pipe.execute()
        assert replies[::2] == [b"%d" % number for number in range(1, 101)]
        assert replies[1::2] == list(range(1, 101))
        with client.pipeline(transaction=True) as pipe:
            pipe.set(f"{queue}:order", "paid")
            pipe.execute_command("VALQ.PUSH", queue, "in a transaction")
            assert pipe.execute() == [True, b"101"]


async def test_asyncio_client(valqd, client, queue, resp):
    async with valkey.asyncio.Valkey(port=valqd.port, protocol=resp) as asyncio_client:
        waiting = asyncio.ensure_future(asyncio_client.execute_command("VALQ.POP", queue, "BLOCK", "5000"))
        await asyncio.to_thread(blocked, client, queue)
        async with valkey.asyncio.Valkey(port=valqd.port, protocol=resp) as other:
            assert await other.execute_command("VALQ.PUSH", queue, "wake") == b"1"
        reply = await waiting
        message = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
        assert message[b"body"] == b"wake"


def run_from_the_docs(page, port, *changes):
    """What the Python of a page prints."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    for old, new in (("6390", str(port)), *changes):
        assert old in code
        code = code.replace(old, new)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    ).stdout.splitlines()


def test_the_python_client_of_the_docs(valqd, queue, client):
    changes = (('"orders"', repr(queue)), ("3000", "300"))
    assert run_from_the_docs("docs/clients.md", valqd.port, *changes) == ["working on order 17"]
    assert client.call("VALQ.POP", queue) is None
    assert as_dict(client.call("VALQ.INFO", queue))[b"acked_total"] == 1


def test_the_metrics_of_the_docs(valqd, queue, client):
    odd = f'{queue}"\\'
    client.call("VALQ.PUSH", odd, "x")
    client.call("VALQ.PUSH", queue, "x")
    client.call("VALQ.POP", queue)
    lines = run_from_the_docs("docs/operating.md", valqd.port)
    ours = {line.replace(queue, "q") for line in lines if queue in line}
    assert {'valq_inflight_msgs{queue="q"} 1', 'valq_ready_msgs{queue="q\\"\\\\"} 1'} <= ours
    for metric, kind in (("valq_ready_msgs", "gauge"), ("valq_delivered_total", "counter")):
        first = lines.index(f"# TYPE {metric} {kind}") + 1
        assert all(line.startswith(metric + "{") for line in lines[first : first + 2])
    assert not [line for line in lines if not re.fullmatch(r'# TYPE \w+ \w+|valq_\w+\{queue=".*"\} \d+', line)]


async def test_glide(valqd, queue):
    configuration = glide.GlideClientConfiguration([glide.NodeAddress("127.0.0.1", valqd.port)])
    client = await glide.GlideClient.create(configuration)
    try:
        assert await client.custom_command(["VALQ.PUSH", queue, "work"]) == b"1"
        message = await client.custom_command(["VALQ.POP", queue])
        assert message[b"body"] == b"work"
        assert await client.custom_command(["VALQ.ACK", queue, message[b"receipt"]]) == 1
        assert await client.set(queue, "plain") == "OK"
        assert await client.get(queue) == b"plain"
    finally:
        await client.close()


def cli(port, *words, lines=None):
    done = subprocess.run(
        [CLI, "-p", str(port), *words], input=lines, capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout


def test_command_line_client(valqd, queue):
    assert CLI, "install valkey-tools or redis-tools"
    assert cli(valqd.port, "VALQ.PUSH", queue, "hello") == "1\n"
    assert cli(valqd.port, "-3", "--json", "VALQ.POP", queue).startswith("{")
    popped = json.loads(cli(valqd.port, "-3", "--json", "VALQ", "SHOW", queue, "1"))
    assert popped["body"] == "hello"
    answers = cli(valqd.port, lines=f"MULTI\nVALQ.PUSH {queue} a\nGET nothing\nEXEC\n").split()
    assert answers == ["OK", "QUEUED", "QUEUED", "2"]


def test_command_answers_for_our_commands(client, direct):
    names = client.call("COMMAND", "LIST")
    assert b"valq.push" in names
    assert b"get" in names
    assert client.call("COMMAND", "COUNT") - direct.call("COMMAND", "COUNT") == len(client.call("COMMAND")) - len(
        direct.call("COMMAND")
    )
    ours, unknown, theirs = client.call("COMMAND", "INFO", "VALQ.PUSH", "no-such", "get")
    assert ours[0] == b"valq.push"
    assert unknown is None
    assert theirs[0] == b"get"
    assert client.call("COMMAND", "GETKEYS", "VALQ.PUSH", "q", "m") == [b"q"]
    docs = client.call("COMMAND", "DOCS", "valq.push", "get")
    keys = list(docs) if isinstance(docs, dict) else docs[::2]
    assert sorted(keys) == [b"get", b"valq.push"]
    assert set(client.call("COMMAND", "LIST", "FILTERBY", "PATTERN", "valq.p*")) >= {b"valq.push", b"valq.pop"}


PATTERNS = {"valq.[^m]p*": b"valq.update", "valq.[^m]op": b"valq.pop", r"valq.p\op": b"valq.pop", "V*.P?P": b"valq.pop"}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_command_list_takes_patterns_as_valkey_does(client, pattern):
    assert client.call("COMMAND", "LIST", "FILTERBY", "PATTERN", pattern) == [PATTERNS[pattern]]

"""``python -m bench``: every figure that valqd is held to, as a ratio measured in one run; writes bench/results.md.

A machine's speed drifts, so the two sides of a ratio are measured in turns (A B A B A B), and the median counts.  Needs
a C compiler for the load generator; peers that are not installed are left out by name.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.servers import Connection, Servers, as_map

HERE = Path(__file__).parent
ROUNDS = 5
#: Of rows whose queues must be filled anew each time.
FEW_ROUNDS = 3
SECONDS = 0.7
Measure = Callable[[], float]


@dataclass
class Row:
    """One line of the table: medians of both sides, and their ratio with its spread."""

    name: str
    least: str
    aim: str
    ours: str
    other: str
    ratio: str

    def verdict(self) -> str:
        """Whether its median reaches "at least"; empty where that is no ratio."""
        least = re.fullmatch(r"(<= )?([\d.]+)x", self.least)
        median = re.match(r"[\d.]+(?=x)", self.ratio)
        if least is None or median is None:
            return ""
        figure, mark = float(median[0]), float(least[2])
        return "met" if (figure <= mark if least[1] else figure >= mark) else "**missed**"


class Bench:
    """The rows, and what they are measured with."""

    def __init__(self, servers: Servers, generator: str) -> None:
        self.servers = servers
        self.generator = generator
        self.rows: list[Row] = []

    def load(
        self, proto: str, port: int, conns: int, pipeline: int, body: int = 100, queues: str = "1", mode: str = "job"
    ) -> float:
        """Jobs a second from the load generator."""
        command = [self.generator, proto, port, conns, pipeline, body, SECONDS, queues, mode]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
        return float(done.stdout)

    def compare(
        self, name: str, least: str, aim: str, ours: Measure, other: Measure, unit: str = "/s", rounds: int = ROUNDS
    ) -> None:
        """Measure both in turns, and note the row."""
        pairs = [(ours(), other()) for _ in range(rounds)]
        ratios = sorted(a / b for a, b in pairs if b)
        middle = [statistics.median(side) for side in zip(*pairs, strict=True)]
        spread = f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        self.note(Row(name, least, aim, f"{middle[0]:,.0f}{unit}", f"{middle[1]:,.0f}{unit}", spread))

    def note(self, row: Row) -> None:
        """Add a row, and show it."""
        self.rows.append(row)
        mark = f"at least {row.least}" if row.least else ""
        print(f"{row.name:84} {row.ours:>16} {row.other:>16}  {row.ratio:24} {mark}", flush=True)

    # ---- rows

    def jobs(self) -> None:
        """Push, pop and ack, against Valkey called directly and against beanstalkd."""
        valqd, direct = self.servers.valqd.port, self.servers.valkey.port
        for pipeline, least, aim in ((1, "1.2x", "2x"), (16, "2.5x", "4x")):
            name = f"push + pop + ack, {pipeline} deep, against direct"
            self.servers.clear()
            self.compare(
                name, least, aim, lambda p=pipeline: self.load("valqd", valqd, 50, p),
                lambda p=pipeline: self.load("direct", direct, 50, p),
            )  # fmt: skip
        if self.servers.beanstalkd is None:
            print("beanstalkd is not installed: left out")
            return
        for pipeline, least, aim in ((1, "0.7x", "1.2x"), (16, "2.5x", "4x")):
            self.servers.clear()
            self.compare(
                f"push + pop + ack, {pipeline} deep, against beanstalkd", least, aim,
                lambda p=pipeline: self.load("valqd", valqd, 50, p),
                lambda p=pipeline: self.load("beanstalk", self.servers.beanstalkd.port, 50, p),
            )  # fmt: skip

    def passthrough(self) -> None:
        """SET and GET through valqd, against Valkey directly; then pushes with an option."""
        tool = shutil.which("valkey-benchmark") or shutil.which("redis-benchmark")
        if tool is None:
            print("valkey-benchmark and redis-benchmark are not installed: left out")
            return
        valqd, direct = self.servers.valqd.port, self.servers.valkey.port

        def run(port: int, pipeline: int, count: int, *words: object) -> float:
            command = [tool, "-p", port, "-c", 50, "-n", count, "-P", pipeline, "-d", 100, "--csv", *words]
            done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
            lines = [line for line in done.stdout.splitlines() if line.startswith('"') and '"rps"' not in line]
            return statistics.mean(float(line.split('","')[1].strip('"')) for line in lines)

        set_get = ("-t", "set,get")
        for pipeline, least, aim, count in ((1, "0.5x", "0.9x", 40_000), (16, "0.7x", "0.95x", 300_000)):
            self.compare(
                f"SET and GET passed through, 50 clients, {pipeline} deep", least, aim,
                lambda p=pipeline, n=count: run(valqd, p, n, *set_get),
                lambda p=pipeline, n=count: run(direct, p, n, *set_get),
            )  # fmt: skip
        body = "x" * 100
        self.servers.clear()
        self.compare(
            "push with PRIORITY, 16 deep, against direct without", "", "",
            lambda: run(valqd, 16, 50_000, "VALQ.PUSH", "bench0", body, "PRIORITY", 5),
            lambda: run(direct, 16, 50_000, "FCALL", "bench_push", 4, "m", "r", "i", "b", body), rounds=FEW_ROUNDS,
        )  # fmt: skip

    def depth(self) -> None:
        """What waits, is delayed or is in flight must cost nothing."""
        port = self.servers.valqd.port

        def against(
            name: str, least: str, fill: Callable[[Connection], None], shallow: Callable[[Connection], None]
        ) -> None:
            def side(prepare: Callable[[Connection], None]) -> Measure:
                def measure() -> float:
                    self.servers.clear()
                    with Connection(port) as connection:
                        connection.call("VALQ.CREATE", "bench0", "3600", "NX")
                        prepare(connection)
                    return self.load("valqd", port, 50, 16)

                return measure

            self.compare(name, least, "1x", side(fill), side(shallow), rounds=FEW_ROUNDS)

        def waiting(count: int) -> Callable[[Connection], None]:
            return lambda connection: push(connection, "bench0", count)

        def in_flight(connection: Connection) -> None:
            push(connection, "bench0", 100_000)
            for _ in range(100):
                connection.call("VALQ.POP", "bench0", "COUNT", "1000")

        def delayed(connection: Connection) -> None:
            push(connection, "bench0", 100_000, "DELAY", "3600")

        nothing = waiting(0)
        against("with 100,000 in flight, against none", "0.9x", in_flight, nothing)
        against("with 1,000,000 waiting, against 1,000", "0.85x", waiting(1_000_000), waiting(1_000))
        against("with 100,000 delayed, against none", "0.85x", delayed, nothing)

    def shapes(self) -> None:
        """Many queues, several workers, batches, priorities."""
        port = self.servers.valqd.port
        self.servers.clear()
        self.compare(
            "200 queues, 4 clients on each of 50 at a time, against one queue", "0.5x", "0.8x",
            lambda: self.load("valqd", port, 200, 1, queues="200:50"), lambda: self.load("valqd", port, 200, 1),
        )  # fmt: skip
        with self.servers.another(workers=2) as two:
            self.compare(
                "--workers 2, against 1 (two cores in all)", "0.9x", "",
                lambda: self.load("valqd", two.port, 50, 1), lambda: self.load("valqd", port, 50, 1),
            )  # fmt: skip
        self.servers.clear()
        self.compare(
            "MPUSH, POP COUNT and ACK of 100, against 16 deep", "", "",
            lambda: self.load("valqd", port, 10, 100, mode="batch"), lambda: self.load("valqd", port, 50, 16),
        )  # fmt: skip

        self.servers.clear()
        self.compare(
            "50 workers wait in POP BLOCK, 50 clients push, against 50 that poll", "", "",
            lambda: self.load("valqd", port, 100, 1, mode="block"), lambda: self.load("valqd", port, 50, 1),
        )  # fmt: skip

        def prepared(*options: str) -> Measure:
            def measure() -> float:
                self.servers.clear()
                with Connection(port) as connection:
                    push(connection, "bench0", 200_000, *options)  # more than are taken
                return self.load("valqd", port, 50, 16, mode="popack")

            return measure

        self.compare(
            "pop + ack with PRIORITY, against without", "", "", prepared("PRIORITY", "5"), prepared(), rounds=FEW_ROUNDS
        )

    def bodies(self) -> None:
        """Large bodies, MB/s."""
        for size, conns in ((1024, 50), (65536, 50), (1 << 20, 8)):
            self.servers.clear()
            self.compare(
                f"bodies of {size:,} bytes, against direct", "0.7x", "1x",
                lambda s=size, c=conns: self.load("valqd", self.servers.valqd.port, c, 1, s) * s / 1e6,
                lambda s=size, c=conns: self.load("direct", self.servers.valkey.port, c, 1, s) * s / 1e6,
                unit=" MB/s",
            )  # fmt: skip

    def memory(self) -> None:
        """Bytes a waiting message, and what is left when all are gone."""
        count = 1_000_000
        with Connection(self.servers.valkey.port) as direct, Connection(self.servers.valqd.port) as connection:

            def used() -> int:
                return int(memory_info(direct, "used_memory"))

            def grown(fill: Callable[[], None]) -> float:
                self.servers.clear()
                before = used()
                fill()
                return (used() - before) / count

            def fill_list() -> None:
                for _ in range(count // 1000):
                    direct.call("RPUSH", "list", *["x" * 100] * 1000)

            ours, plain = grown(lambda: push(connection, "bench0", count)), grown(fill_list)
            self.note(
                Row("used_memory a waiting message of 100 bytes, against LIST", "<= 1.4x", "<= 1.15x", f"{ours:.1f} B",
                    f"{plain:.1f} B", f"{ours / plain:.2f}x")
            )  # fmt: skip
            for keep in (0, 100):
                self.servers.clear()
                push(connection, "bench0", 1000)
                take(connection, 1000, 0)
                before = used()
                push(connection, "bench0", 200_000)
                left = take(connection, 200_000, keep)
                gone = (200_000 - left) * ours
                mark = before + left * ours + 0.02 * gone if keep else before * 1.02
                deadline = time.monotonic() + 12
                while used() > mark and time.monotonic() < deadline:
                    time.sleep(0.2)
                if keep:
                    kept = used() - before - left * ours
                    self.note(
                        Row("used_memory kept when all but every 100th of 200,000 are acked, of what these had used",
                            "<= 0.02x", "", f"{kept:,.0f} B", f"{gone:,.0f} B", f"{kept / gone:.3f}x")
                    )  # fmt: skip
                else:
                    self.note(
                        Row("used_memory when all of 200,000 are acked, against before", "<= 1.02x", "",
                            f"{used():,} B", f"{before:,} B", f"{used() / before:.3f}x")
                    )  # fmt: skip

    def latency(self) -> None:
        """One client on an idle daemon: PUSH to POP against two direct calls; how soon a waiting client is woken."""
        keys = [f"{{l}}{suffix}" for suffix in "mrib"]
        with Connection(self.servers.valqd.port) as ours, Connection(self.servers.valkey.port) as direct:

            def p50(step: Callable[[], None]) -> Measure:
                def measure() -> float:
                    times = []
                    for _ in range(1000):
                        start = time.perf_counter()
                        step()
                        times.append(time.perf_counter() - start)
                    return statistics.median(times) * 1e6

                return measure

            def through() -> None:
                ours.call("VALQ.PUSH", "latency", "x" * 100)
                ours.call("VALQ.POP", "latency")

            def called() -> None:
                direct.call("FCALL", "bench_push", "4", *keys, "x" * 100)
                direct.call("FCALL", "bench_pop", "4", *keys)

            self.servers.clear()
            self.compare("PUSH to POP, one client, p50", "<= 2x", "<= 1.5x", p50(through), p50(called), " us")
        with Connection(self.servers.valqd.port) as worker, Connection(self.servers.valqd.port) as producer:
            wakes = []
            for number in range(500):
                worker.send("VALQ.POP", "wake", "BLOCK", "5000")
                time.sleep(0.002)
                pushed = time.perf_counter()
                producer.call("VALQ.PUSH", "wake", str(number))
                receipt = as_map(worker.read())[b"receipt"]
                wakes.append((time.perf_counter() - pushed) * 1000)
                worker.call("VALQ.ACK", "wake", receipt)
            wakes.sort()
            text = f"p50 {wakes[250]:.2f} ms, p99 {wakes[494]:.2f} ms"
            self.note(Row("a blocked POP is woken by a push", "p99 < 5 ms", "", text, "", ""))


def push(connection: Connection, queue: str, count: int, *options: str) -> None:
    """Push ``count`` bodies of 100 bytes."""
    connection.call("VALQ.CREATE", queue, "3600", "NX")
    for _ in range(count // 1000):
        connection.call("VALQ.MPUSH", queue, "1000", *["x" * 100] * 1000, *options)


def take(connection: Connection, count: int, keep: int) -> int:
    """Pop all and acknowledge all but every ``keep``-th; how many are left."""
    left = 0
    for _ in range(count // 1000):
        messages = connection.call("VALQ.POP", "bench0", "COUNT", "1000")
        ids = [as_map(message)[b"receipt"] for message in messages]
        kept = ids[::keep] if keep else []
        left += len(kept)
        connection.call("VALQ.ACK", "bench0", *(set(ids) - set(kept)))
    return left


def memory_info(connection: Connection, field: str) -> str:
    """One field of INFO memory."""
    lines = connection.call("INFO", "memory").decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)[field]


def compiled() -> str:
    """The load generator, built when its source is newer."""
    source, target = HERE / "load.c", HERE / "build" / "load"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            sys.exit("bench: no C compiler (Debian: gcc and libc6-dev)")
        target.parent.mkdir(exist_ok=True)
        subprocess.run([compiler, "-O2", "-o", str(target), str(source)], check=True)
    return str(target)


def write_results(rows: list[Row], allocator: str, took_s: float) -> None:
    """The table, as bench/results.md.

    ``allocator`` is Valkey's: with many delayed messages glibc's malloc (libc) gives lower figures than jemalloc.
    """
    lines = [
        "# Measured",
        "",
        f"`make bench` on {datetime.date.today():%Y-%m-%d}: {os.cpu_count()} cores, {platform.machine()}, Python "
        f"{platform.python_version()}, Valkey without persistence (allocator: {allocator}), one worker, load "
        f"generator on the same cores; {ROUNDS} rounds of {SECONDS} s for each side ({FEW_ROUNDS} where queues are "
        f"filled first), in turns; {took_s:.0f} s in all.",
        "",
        '"At least" and "aim for" are the project\'s own goals. Direct: the same work by one FCALL a command, without '
        "valqd (`bench/baseline.lua`). 16 deep: 16 commands are sent before their replies are read.",
        "",
        "| | at least | aim for | valqd | against | ratio: median (range) | |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.least} | {row.aim} | {row.ours} | {row.other} | {row.ratio} | {row.verdict()} |"
        for row in rows
    ]
    (HERE / "results.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run all groups of rows, or those named."""
    groups = ("jobs", "passthrough", "depth", "shapes", "bodies", "memory", "latency")
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure valqd.")
    parser.add_argument("--only", choices=groups, action="append", help="only these rows; results.md is left as it is")
    chosen = parser.parse_args().only
    start = time.monotonic()
    with Servers() as servers:
        bench = Bench(servers, compiled())
        for group in chosen or groups:
            getattr(bench, group)()
        with Connection(servers.valkey.port) as connection:
            built_in = memory_info(connection, "mem_allocator")
            allocator = f"{built_in}, jemalloc preloaded" if servers.jemalloc_is_preloaded else built_in
    if not chosen:
        write_results(bench.rows, allocator, time.monotonic() - start)


if __name__ == "__main__":
    main()

"""What the daemon's processes ask of the operating system: stop signals, cores, memory, open files."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import resource
import signal

#: How often signals, workers that died and the embedded Valkey are looked for.
STOP_TICK_S = 0.1
#: File descriptors beyond the clients' own: listening, lanes, control, logs.
_SPARE_FILES = 128
#: glibc's numbers for mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: Freed memory that the C library keeps, and the size from which a piece is mapped, and given back, on its own.
KEPT_BYTES = 64 << 20
MAPPED_FROM_BYTES = 32 << 20

log = logging.getLogger(__name__)


def stop_signals() -> set[signal.Signals]:
    """What ends the daemon: SIGHUP too, unless it was started to outlive its terminal (nohup)."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return {signal.SIGTERM, signal.SIGINT} | (set() if ignored else {signal.SIGHUP})


def is_told_to_stop() -> bool:
    """Whether a stop signal has come; they are blocked, and looked for by this."""
    return not stop_signals().isdisjoint(signal.sigpending())


def stop_if_told() -> None:
    """Raises KeyboardInterrupt if so: for where a start waits."""
    if is_told_to_stop():
        raise KeyboardInterrupt


def how_it_ended(code: int) -> str:
    """A process, by its exit code (negative: the signal)."""
    return f"was ended by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"ended with exit status {code}"


def available_cores() -> int:
    """Cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Have the C library keep up to 64 MiB that were freed.

    By default glibc gives the memory of each large body back at once, and the next one pays for it page by page: with
    bodies of 64 KB and more that cost an eighth of all jobs.  Other C libraries have no such switch.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def raise_file_limit(max_clients: int, warn: bool) -> int:
    """Allow a client socket and a private lane for each client; as many clients as that is granted for."""
    wanted = 2 * max_clients + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        for new_soft, new_hard in ((wanted, max(hard, wanted)), (min(hard, wanted), hard)):
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (new_soft, new_hard))
                soft = new_soft
                break
        if soft < wanted:
            granted = max(1, (soft - _SPARE_FILES) // 2)
            if warn:
                log.warning(
                    "max_clients is %d: the system allows only %d open files, and two a client are wanted: %d "
                    "(ulimit -n, LimitNOFILE=)",
                    granted,
                    soft,
                    wanted,
                )
            return granted
    return max_clients

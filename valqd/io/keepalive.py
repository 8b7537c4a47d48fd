"""Notices when the other side of a TCP connection is gone without a word: power or network failed."""

from __future__ import annotations

import socket


def keep_alive(connection: socket.socket, idle_s: int, unanswered_s: int = 0) -> None:
    """Ask after ``idle_s`` of silence, then three times more, a third of that apart.

    ``unanswered_s``: how long what was sent may go without the other host's having got it (0: as the system has it).
    Systems that lack an option keep their own time.
    """
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wanted = {"TCP_KEEPIDLE": idle_s, "TCP_KEEPINTVL": max(1, idle_s // 3), "TCP_KEEPCNT": 3}
    if unanswered_s:
        wanted["TCP_USER_TIMEOUT"] = unanswered_s * 1000
    for name, value in wanted.items():
        if (option := getattr(socket, name, None)) is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)

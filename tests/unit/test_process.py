"""What a process is to its system: files, signals, dead peers, complaints that are not repeated."""

import logging
import resource
import signal
import socket

import pytest

from tests.servers import LINUX_ONLY
from valqd.io import process
from valqd.io.complaints import Complaints
from valqd.io.keepalive import keep_alive
from valqd.io.process import raise_file_limit, stop_signals


@LINUX_ONLY
def test_a_backend_that_has_gone_silent_is_given_up_after_a_minute():
    with socket.socket() as connection:
        keep_alive(connection, 30, 60)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        assert [connection.getsockopt(socket.IPPROTO_TCP, each) for each in options] == [30, 10, 3, 60_000]


@pytest.mark.parametrize(("files", "clients"), [(10_000, 4000), (8128, 4000), (1128, 500), (50, 1)])
def test_no_more_clients_are_taken_than_there_are_files_for(monkeypatch, files, clients):
    def refuse(which, limits):
        raise ValueError

    monkeypatch.setattr(resource, "getrlimit", lambda which: (files, files))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_file_limit(4000, warn=False) == clients


def test_who_was_started_to_outlive_its_terminal_does(monkeypatch):
    for hangup, stops in ((signal.SIG_IGN, False), (signal.SIG_DFL, True)):
        monkeypatch.setattr(process.signal, "getsignal", lambda number, is_now=hangup: is_now)
        assert (signal.SIGHUP in stop_signals()) is stops


def test_what_begins_anew_is_said_anew(caplog):
    complaints = Complaints()
    with caplog.at_level(logging.WARNING):
        for step in (complaints.say, complaints.say, complaints.over, complaints.say):
            step(*("it", "why")[: 1 if step == complaints.over else 2])
    assert [record.getMessage() for record in caplog.records] == ["it: why", "it: this is over", "it: why"]

"""valkeys://: a backend behind TLS.  The server binary may lack TLS, so a relay that has it stands before Valkey."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
import trustme

from tests.servers import LINUX_ONLY, Connection, Valkey, Valqd, children, free_port, until


class TlsRelay:
    """Ends TLS before a port of this host; wants a client certificate of ``clients`` if given."""

    def __init__(self, certificate, target_port, clients=None):
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self._context)
        if clients:
            self._context.verify_mode = ssl.CERT_REQUIRED
            clients.configure_trust(self._context)
        self._target_port = target_port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with contextlib.suppress(OSError), self._context.wrap_socket(client, server_side=True) as secure:
            secure.setblocking(False)
            turn = threading.Lock()  # OpenSSL's connections are not for two threads at once
            with socket.create_connection(("127.0.0.1", self._target_port)) as target:
                threading.Thread(target=self._copy_back, args=(target, secure, turn), daemon=True).start()
                while data := _when_ready(turn, lambda: secure.recv(65536)):
                    target.sendall(data)

    @staticmethod
    def _copy_back(target, secure, turn):
        with contextlib.suppress(OSError):
            while data := target.recv(65536):
                while data:
                    data = data[_when_ready(turn, lambda part=data: secure.send(part)) :]

    def close(self):
        self._listening.close()


def _when_ready(turn, action):
    while True:
        with turn, contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return action()
        time.sleep(0.001)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope="module")
def valkey():
    with Valkey() as server:
        yield server


@pytest.fixture
def relay(authority, valkey):
    relay = TlsRelay(authority.issue_cert("127.0.0.1"), valkey.port)
    yield relay
    relay.close()


def refusal(backend, *options):
    """What a daemon that must not start says."""
    command = [sys.executable, "-m", "valqd", "--listen", f"127.0.0.1:{free_port()}", "--backend", backend, *options]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_both_lanes_and_large_bodies_go_through_tls(relay, ca_file):
    with (
        Valqd(f"valkeys://127.0.0.1:{relay.port}", backend_ca_file=ca_file) as daemon,
        Connection(daemon.port) as connection,
    ):
        body = b"\r\n\0" * 300_000
        assert connection.call("VALQ.PUSH", "secret", body) == b"1"
        assert connection.call("VALQ.POP", "secret")[3] == body
        assert connection.call("MULTI") == b"OK"
        assert connection.call("VALQ.ACK", "secret", "1-1") == b"QUEUED"
        assert connection.call("EXEC") == [1]


def test_a_certificate_is_shown_to_a_backend_that_wants_one(authority, ca_file, valkey, tmp_path):
    shown = authority.issue_cert("valqd")
    shown.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    relay = TlsRelay(authority.issue_cert("127.0.0.1"), valkey.port, clients=authority)
    url = f"valkeys://127.0.0.1:{relay.port}"
    with (
        Valqd(url, backend_ca_file=ca_file, backend_cert_file=tmp_path / "both.pem") as daemon,
        Connection(daemon.port) as connection,
    ):
        assert connection.call("PING") == b"PONG"
        assert connection.call("DBSIZE") >= 0
    assert f"backend {url}: " in refusal(url, "--backend-ca-file", ca_file)
    relay.close()


def test_a_start_that_fails_says_what_to_do(relay, ca_file, tmp_path):
    url = f"valkeys://127.0.0.1:{relay.port}"
    assert "backend_ca_file" in refusal(url)  # an unknown authority
    assert "valkeys://" in refusal(f"valkey://127.0.0.1:{relay.port}")  # no TLS
    assert "backend_ca_file: cannot read '/nowhere'" in refusal(url, "--backend-ca-file", "/nowhere")
    (tmp_path / "bad.pem").write_text("no certificate")
    options = ["--backend-ca-file", ca_file, "--backend-cert-file", tmp_path / "bad.pem"]
    assert "certificates cannot be used" in refusal(url, *options)
    assert "backend_key_file: is only of use with" in refusal(url, "--backend-key-file", ca_file)


@LINUX_ONLY
def test_a_worker_that_is_started_again_uses_the_files_that_the_start_has_read(relay, ca_file, tmp_path):
    own_ca = tmp_path / "ca.pem"
    own_ca.write_bytes(ca_file.read_bytes())
    url = f"valkeys://127.0.0.1:{relay.port}"
    with Valqd(url, backend_ca_file=own_ca, workers=2) as daemon:
        with Connection(daemon.port) as connection:
            assert connection.call("PING") == b"PONG"
        own_ca.unlink()
        for pid in children(daemon.pid):
            os.kill(pid, signal.SIGKILL)
        until(lambda: daemon.output().count("it is started again") == 2, 5, "seen")

        def answers():
            with contextlib.suppress(OSError), Connection(daemon.port, timeout_s=2) as connection:
                return connection.call("VALQ.PUSH", "restarted", "x")
            return None

        until(answers, 10, "they take connections")
        assert all(isinstance(answers(), bytes) for _ in range(10))

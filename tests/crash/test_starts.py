"""What the start says of the backend and of the port that it is given."""

import socket
import threading

import pytest

from tests.crash.test_operating import start_refused
from tests.servers import Connection, Valkey, Valqd, free_port, request, until


@pytest.mark.parametrize(
    ("info", "named"),
    [
        ("redis_version:7.4.1", "Redis 7.4.1"),
        ("redis_version:7.2.4\r\nvalkey_version:7.1.9", "Valkey 7.1.9"),
    ],
)
def test_a_backend_that_is_no_valkey_of_7_2_or_higher_is_refused_by_name_and_version(info, named):
    def answer(server):
        with server.accept()[0] as connection:
            for reply in (b"%1\r\n$5\r\nproto\r\n:3\r\n", b"$%d\r\n%b\r\n" % (len(info), info.encode())):
                connection.recv(4096)
                connection.sendall(reply)
            connection.recv(4096)

    with socket.create_server(("127.0.0.1", free_port())) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        said = start_refused("--backend", f"valkey://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert "needs Valkey 7.2 or higher" in said
    assert named in said


@pytest.mark.parametrize(
    ("host", "password", "warned"), [("0.0.0.0", False, True), ("0.0.0.0", True, False), ("127.0.0.1", False, False)]
)
def test_an_open_port_without_a_password_is_warned_of(host, password, warned):
    options = ("--requirepass", "pw") if password else ()
    with Valkey(*options) as valkey:
        url = valkey.url.replace("//", "//:pw@") if password else valkey.url
        port = free_port()
        with Valqd(url, port=port, listen=f"{host}:{port}") as daemon:
            if warned:
                until(lambda: "whoever reaches it may do anything" in daemon.output(), what="said")
            with Connection(daemon.port) as connection:
                connection.send_raw(request("PING"))
                connection.read()
            assert ("whoever reaches it may do anything" in daemon.output()) == warned

"""A TCP forwarder before a backend, as a container's network or a load balancer is one."""

import contextlib
import socket
import threading
import time


class Forwarder:
    """Forwards connections.

    ``target_is_gone`` closes them and each new one; while ``is_silent``, new ones are taken and left alone.  What holds
    the word ``held_back``, in upper case, is held back on its way to the target.  With ``cuts`` large answers stop in
    their middle.  Each way takes ``delay_s``.
    """

    def __init__(self, target_port: int):
        self._target_port = target_port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.port = self._listening.getsockname()[1]
        self.url = f"valkey://127.0.0.1:{self.port}"
        self.target_is_gone = self.is_silent = False
        self.left_alone = 0  # connections that came while it was silent
        self.held_back: bytes | None = None
        self.holds = 0  # how often something was held back or cut
        self.cuts = False
        self.delay_s = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_target(self):
        self.target_is_gone = True
        self.close_all()

    def switch_to(self, target_port: int):
        """As a service's address does that leads to another node from now on."""
        self._target_port = target_port
        self.close_all()

    def close_all(self):
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self.target_is_gone:
                    client.close()
                    continue
                if self.is_silent:
                    self._open.add(client)
                    self.left_alone += 1
                    continue
                target = socket.create_connection(("127.0.0.1", self._target_port))
                self._open |= {client, target}
                for source, sink in ((client, target), (target, client)):
                    threading.Thread(target=self._copy, args=(source, sink, source is client), daemon=True).start()

    def _copy(self, source, sink, may_hold_back):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self.delay_s)
                if may_hold_back and self.held_back is not None and self.held_back in data.upper():
                    self.holds += 1
                    while self.held_back is not None:
                        time.sleep(0.01)
                elif not may_hold_back and self.cuts and len(data) > 30_000:
                    sink.sendall(data[:20_000])
                    data = data[20_000:]
                    self.holds += 1
                    while self.cuts:
                        time.sleep(0.01)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.held_back, self.cuts = None, False
        self._listening.close()
        self.lose_target()
        for connection in list(self._open):
            connection.close()

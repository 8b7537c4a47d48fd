"""The daemon's errors.

``CommandError`` and what derives from it go to a client as a RESP error reply; each class owns the code that the reply
starts with.  ``StartError`` and ``ControlLost`` reach no client as they are: an operator reads them, or nobody.
"""

from __future__ import annotations

#: Codes of the queue's own errors, raised in the backend; others: ``ERR``, and the daemon's NOBACKEND and NOAUTH.
QUEUE_CODES = frozenset({"NOQUEUE", "QUEUEEXISTS", "NOMSG", "STALE", "NOTINFLIGHT", "FULL", "PAUSED", "CANCELLED"})
#: With these the backend tells of its own state, whatever it was asked; it will be well again.
STATE_CODES = ("LOADING", "BUSY", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "MISCONF")
#: How much of a client's own bytes an error repeats, before escaping.
MAX_SHOWN_BYTES = 64


def shown(raw: bytes) -> str:
    r"""``raw`` as an error text may repeat it: ASCII, control and other bytes as ``\xHH``, cut at MAX_SHOWN_BYTES.

    A client's bytes must neither end the error line early nor fill the reply.
    """
    text = "".join(chr(b) if 0x20 <= b < 0x7F and b != 0x5C else f"\\x{b:02x}" for b in raw[:MAX_SHOWN_BYTES])
    return text if len(raw) <= MAX_SHOWN_BYTES else text + "..."


class CommandError(Exception):
    """A command that cannot be run as it was sent.  The connection goes on.

    ``text`` is the sentence after the code; ``str(error)`` is both, as in the reply without its ``-``.
    """

    code = "ERR"

    def __init__(self, text: str) -> None:
        super().__init__(f"{self.code} {text}")

    def resp(self) -> bytes:
        """The reply.  A line break in the text would end it early, so it becomes a space."""
        line = f"-{self}".replace("\r", " ").replace("\n", " ")
        return line.encode("utf-8", "surrogateescape") + b"\r\n"  # it may repeat an error of the backend


class BackendDown(CommandError):
    """The backing Valkey cannot be reached.  The daemon goes on, and reconnects by itself."""

    code = "NOBACKEND"

    def __init__(self, under_way: bool = False) -> None:
        """``under_way``: the command was already sent, so that it may have been applied."""
        if under_way:
            text = "connection to the backend was lost while the command was under way: it may have been applied"
        else:
            text = "the backend cannot be reached: the command was not sent, try again"
        super().__init__(text)

    @classmethod
    def is_said_by(cls, reply: bytes) -> bool:
        """Whether a reply is such an error: not the backend's own, but the daemon's for want of it."""
        return reply.startswith(b"-%b " % cls.code.encode())


#: How error replies begin that are no refusal: the same, asked later, may succeed.
PASSING_ERRORS = tuple(f"-{code} ".encode() for code in (*STATE_CODES, BackendDown.code, "TRYAGAIN"))
#: The same of what writes: a replica may become a primary.
PASSING_WRITE_ERRORS = (*PASSING_ERRORS, b"-READONLY ")


class BackendReplaced(CommandError):
    """WAIT can only tell of what was written to the process that the backend is now."""

    code = BackendDown.code

    def __init__(self) -> None:
        super().__init__("the backend was replaced since this connection's last WAIT: what it wrote before may be lost")


class Refused(CommandError):
    """What the backend refuses, in its own words."""

    def __init__(self, reply: bytes) -> None:
        """``reply``: its error reply."""
        self.code, _, text = reply[1:-2].decode("utf-8", "surrogateescape").partition(" ")
        super().__init__(text)


class NotAuthenticated(CommandError):
    """Valkey asks this client for a password."""

    code = "NOAUTH"

    def __init__(self) -> None:
        super().__init__("Authentication required.")


class StartError(Exception):
    """The daemon cannot start (or its backend cannot be used); the text says what and where, in one line."""

    def __init__(self, text: str, refusal: str = "") -> None:
        """``refusal``: the backend's own error, if it answered one."""
        super().__init__(text)
        self.refusal = refusal


class SettingError(StartError):
    """A setting is unknown or bad."""

    def __init__(self, name: str, text: str) -> None:
        """``name`` is the setting, as it was given."""
        super().__init__(f"{name}: {text}")


class ControlLost(Exception):
    """The daemon's own connection to the backend is down; it reconnects by itself."""

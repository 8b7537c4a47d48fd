"""The daemon's settings: one table, from which flags and variables come; tests hold the file and the README to it.

Command line beats environment beats file beats default.  A setting that is unknown or bad raises SettingError, which
names it and where it came from.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from valqd import __version__
from valqd.errors import SettingError


def _yes_no(value: str) -> bool:
    if value.lower() in ("yes", "true", "on", "1"):
        return True
    if value.lower() in ("no", "false", "off", "0"):
        return False
    raise ValueError("must be yes or no")


def _path(value: str) -> str:
    if not value:
        raise ValueError("must name a folder")
    return value


def _integer(least: int, most: int, unit: str = "") -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not value.isascii() or not value.isdigit() or not least <= int(value) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}{unit}")
        return int(value)

    return parse


def _retention(value: str) -> int:
    return 0 if value == "0" else _integer(60, 31536000, " seconds, or 0 for ever")(value)


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.lower() not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return value.lower()

    return parse


def _listen(value: str) -> str:
    host, _, port = value.rpartition(":")
    if value.startswith("unix:"):
        fits = len(value) > 5
    else:
        fits = bool(host.strip("[]")) and (host[0] == "[") == (host[-1] == "]") and port.isascii() and port.isdigit()
        fits = fits and int(port) <= 65535
    if not fits:
        raise ValueError("must be HOST:PORT, with a port up to 65535, or unix:PATH")
    return value


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name in the file (``--flag`` and ``VALQD_`` variable follow from it), and what it takes."""

    name: str
    default: str
    parse: Callable[[str], Any]
    value_name: str
    summary: str

    @property
    def flag(self) -> str:
        """Its command line option."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return "VALQD_" + self.name.upper()


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "listen",
        "127.0.0.1:6390",
        _listen,
        "HOST:PORT|unix:PATH",
        "Where clients connect: host:port, [IPv6]:port or unix:path.",
    ),
    Setting(
        "backend",
        "",
        str,
        "URL",
        "The Valkey that keeps the queues: valkey://[[user]:password@]host[:port][/db], valkeys:// for TLS (also "
        "redis:// and rediss://), unix://[[user]:password@]/path[?db=n]; special characters as %xx; db: where clients "
        "begin. "
        "Empty: a Valkey server of valqd's own, in data_dir.",
    ),
    Setting("backend_ca_file", "", str, "FILE", "CA certificates for valkeys://; empty: the system's."),
    Setting("backend_cert_file", "", str, "FILE", "Certificate to show to valkeys://, if it wants one."),
    Setting("backend_key_file", "", str, "FILE", "Its private key; empty: in the same file."),
    Setting(
        "data_dir",
        "./valqd-data",
        _path,
        "DIR",
        "Where the embedded Valkey keeps its data and its socket, seen from the folder that valqd is started in.",
    ),
    Setting(
        "appendfsync",
        "everysec",
        _one_of("always", "everysec", "no"),
        "always|everysec|no",
        "How soon the embedded Valkey's writes are on disk: always before a reply, every second, or (no) at some time.",
    ),
    Setting("workers", "1", _integer(1, 64), "N", "Processes that share the port."),
    Setting(
        "auto_create",
        "yes",
        _yes_no,
        "yes|no",
        "Whether PUSH and MPUSH create a queue that is not there, and POP and MPOP answer null for it. If not, all "
        "four answer NOQUEUE.",
    ),
    Setting(
        "visibility_timeout",
        "30",
        _integer(1, 43200, " seconds"),
        "S",
        "Visibility timeout of a queue that PUSH or MPUSH creates, in seconds; VALQ.CREATE has defaults of its own: "
        "30, 5, 86400.",
    ),
    Setting(
        "max_delivery_attempts",
        "5",
        _integer(1, 1000),
        "N",
        "Delivery attempts of a queue that PUSH or MPUSH creates.",
    ),
    Setting(
        "retention_period",
        "86400",
        _retention,
        "S",
        "Retention of the dead letters of a queue that PUSH or MPUSH creates, seconds; 0 for ever.",
    ),
    Setting("max_clients", "10000", _integer(1, 1_000_000), "N", "Most clients at a time, in each worker."),
    Setting(
        "max_body_bytes",
        str(512 * 1024 * 1024),
        _integer(1024, 512 * 1024 * 1024, " bytes"),
        "BYTES",
        "Largest body. A whole VALQ command may hold 64 KiB more. Anything larger is refused.",
    ),
    Setting(
        "shutdown_timeout",
        "10",
        _integer(1, 3600, " seconds"),
        "S",
        "How long a stop waits for what is under way, seconds.",
    ),
    Setting(
        "backend_loss",
        "error",
        _one_of("error", "close"),
        "error|close",
        "What clients get while the backend is away. error: the error NOBACKEND. close: their connection is closed, as "
        "by a Valkey that has stopped; VALQ commands, and what is pipelined with them, get NOBACKEND all the same.",
    ),
    Setting(
        "log_level",
        "info",
        _one_of("debug", "info", "warning", "error"),
        "LEVEL",
        "What is logged on stderr: error, warning, info, or debug (each client, too).",
    ),
)


@dataclass(frozen=True)
class Settings:
    """The settings in force; fields as named in SETTINGS."""

    listen: str
    backend: str
    backend_ca_file: str
    backend_cert_file: str
    backend_key_file: str
    data_dir: str
    appendfsync: str
    workers: int
    auto_create: bool
    visibility_timeout: int
    max_delivery_attempts: int
    retention_period: int
    max_clients: int
    max_body_bytes: int
    shutdown_timeout: int
    backend_loss: str
    log_level: str

    @property
    def auto_create_argument(self) -> bytes:
        """What functions are told about missing queues: their defaults in ms, attempts, ms; empty: do not create."""
        if not self.auto_create:
            return b""
        return b"%d:%d:%d" % (
            self.visibility_timeout * 1000,
            self.max_delivery_attempts,
            self.retention_period * 1000,
        )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingError("command line", message)


def _command_line() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="valqd", description="A job queue that every Redis or Valkey client already speaks.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"valqd {__version__}")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="a TOML file with these settings, named with _ instead of - (or VALQD_CONFIG in the environment)",
    )
    for setting in SETTINGS:
        default = f" (default {setting.default})" if setting.default else ""
        parser.add_argument(setting.flag, metavar=setting.value_name, help=setting.summary.replace("%", "%%") + default)
    return parser


def _from_file(path: str) -> dict[str, str]:
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError("config", f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise SettingError("config", f"{path} is no TOML file: {error}") from None
    known = {setting.name for setting in SETTINGS}
    values = {}
    for name, value in table.items():
        if isinstance(value, dict):
            raise SettingError(f"[{name}]", f"in {path}: settings stand in no table")
        if name not in known:
            raise SettingError(name, f"unknown setting in {path}")
        if isinstance(value, bool):
            value = str(value).lower()
        if not isinstance(value, str | int):
            raise SettingError(name, f"in {path} must be a string, a whole number or a boolean")
        try:
            values[name] = str(value)
        except ValueError:  # one in hexadecimal digits, of over 4300 decimal ones
            raise SettingError(name, f"in {path} is too large a number") from None
    return values


def _is_of_a_service(variable: str, environment: Mapping[str, str]) -> bool:
    """Whether Kubernetes put it there: it tells every pod of each service, some of which may be named valqd-...."""
    services = [name.removesuffix("_SERVICE_HOST") for name in environment if name.endswith("_SERVICE_HOST")]
    return any(variable.startswith((f"{service}_SERVICE_", f"{service}_PORT")) for service in services)


def load(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in force for a command line and an environment.

    Raises SettingError, and SystemExit for ``--help`` and ``--version``.
    """
    given = vars(_command_line().parse_args(arguments))
    known = {setting.variable for setting in SETTINGS} | {"VALQD_CONFIG"}
    for variable in environment:
        if variable.startswith("VALQD_") and variable not in known and not _is_of_a_service(variable, environment):
            raise SettingError(variable, "unknown setting in the environment")
    path = environment.get("VALQD_CONFIG") if given["config"] is None else given["config"]
    if given["config"] == "":
        raise SettingError("--config", "names no file")
    file = _from_file(path) if path else {}
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        values[setting.name] = setting.parse(setting.default)
        for where, value in (
            (f"{setting.name} in {path}", file.get(setting.name)),
            (setting.variable, environment.get(setting.variable)),
            (setting.flag, given[setting.name]),
        ):
            if value is None:
                continue
            try:
                if "\0" in value:
                    raise ValueError("must hold no NUL")
                values[setting.name] = setting.parse(value)
            except ValueError as error:
                shown = "" if setting.name == "backend" else f"{value!r}: "  # it may hold a password
                raise SettingError(where, f"{shown}{error}") from None
    return Settings(**values)


assert [field.name for field in fields(Settings)] == [setting.name for setting in SETTINGS]

"""What a reply may hold, in the terms of RESP3; ``protocol/encoding.py`` makes bytes of it, for RESP2 too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from valqd.errors import CommandError


class Status(str):
    """Text sent as a simple string (``+OK``); line breaks are not allowed in it."""

    __slots__ = ()


class Set(tuple["Value", ...]):
    """Elements sent as a set (``~``) in RESP3 and as an array in RESP2; their order is kept."""

    __slots__ = ()


Scalar: TypeAlias = int | bytes | str | CommandError | None
Value: TypeAlias = "Scalar | Sequence[Value] | Mapping[str, Value] | Mapping[bytes, Value]"

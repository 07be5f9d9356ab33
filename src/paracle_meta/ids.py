"""Ids that the client makes: unique without asking the database, and sortable by time."""

from __future__ import annotations

import secrets
import time


def new_id(prefix: str) -> str:
    """Return a new id such as ``gen-0199b4c2f3a87d1e9c0b5a4f3e2d1c0b``.

    The part after the prefix is a UUID version 7 (RFC 9562) in hex: 48 bits of Unix time in
    milliseconds, 12 bits of the fraction below (method 3 of section 6.2), 62 random bits. Ids made
    one after another by a process sort in that order, and a write that is repeated after a lost
    answer carries the same id and is recognised.

    Args:
        prefix: The kind of record: ``gen``, ``tpl``, ``fbk``, ``cst``, ``mem`` or ``bpr``.
    """
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    fraction = rest * 4096 // 1_000_000
    low = secrets.randbits(62)
    value = (milliseconds << 80) | (0x7 << 76) | (fraction << 64) | (0b10 << 62) | low
    return f"{prefix}-{value:032x}"

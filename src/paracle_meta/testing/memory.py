"""The contract of memory: values under a key, within a scope and session, for a time."""

# ruff: noqa: D102, S101 - the name of a test is its promise, and asserting is its purpose

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import Any

import pytest

from paracle_meta import InvalidValueError, MemoryRepository, NotFoundError
from paracle_meta.testing.base import Contract, ids

AT_ONCE = 1e-6
"""A time to live that is over before the next call begins, so that no test has to wait."""


class MemoryContract(Contract):
    """Setting, reading, forgetting; scopes, sessions, and time to live."""

    async def test_a_value_comes_back_until_it_is_deleted(self, memory: MemoryRepository) -> None:
        item = await memory.set("plan", {"steps": [1, 2.5, None, True]}, session_id="s1")
        assert (item.key, item.session_id, item.scope) == ("plan", "s1", "session")
        assert item.expires_at is None
        assert item.created_at == item.updated_at
        assert await memory.get("plan", session_id="s1") == item
        assert await memory.list() == [item]
        await memory.delete("plan", session_id="s1")
        assert await memory.get("plan", session_id="s1") is None
        with pytest.raises(NotFoundError, match="plan"):
            await memory.delete("plan", session_id="s1")

    async def test_none_is_a_value_and_not_a_missing_item(self, memory: MemoryRepository) -> None:
        assert await memory.get("nothing") is None
        await memory.set("nothing", None)
        item = await memory.get("nothing")
        assert item is not None
        assert item.value is None

    async def test_setting_again_keeps_id_and_first_time(self, memory: MemoryRepository) -> None:
        first = await memory.set("key", 1, ttl_seconds=3600)
        second = await memory.set("key", [2])
        assert (second.id, second.created_at) == (first.id, first.created_at)
        assert second.updated_at > first.updated_at
        assert (second.value, second.expires_at) == ([2], None)
        assert await memory.get("key") == second
        third = await memory.set("key", "3", ttl_seconds=60)
        assert third.expires_at == third.updated_at + timedelta(seconds=60)
        assert await memory.count() == 1

    async def test_scopes_and_sessions_are_apart(self, memory: MemoryRepository) -> None:
        places: list[dict[str, Any]] = [
            {},
            {"session_id": "a"},
            {"session_id": "b"},
            {"session_id": "A"},
            {"scope": "project"},
            {"scope": "project", "session_id": "a"},
            {"scope": "Project"},
        ]
        for n, place in enumerate(places):
            await memory.set("key", n, **place)
        for n, place in enumerate(places):
            item = await memory.get("key", **place)
            assert item is not None
            assert item.value == n
        await memory.delete("key", session_id="a")
        assert await memory.get("key", session_id="a") is None
        assert await memory.count() == len(places) - 1

    async def test_one_key_set_by_many_at_once_is_one_item(self, memory: MemoryRepository) -> None:
        items = await asyncio.gather(*(memory.set("key", n) for n in range(12)))
        assert len({item.id for item in items}) == 1
        assert await memory.count() == 1
        stored = await memory.get("key")
        assert stored is not None
        assert stored.value in range(12)

    async def test_list_and_count(self, memory: MemoryRepository) -> None:
        made = [
            await memory.set(
                f"key-{n}", n, session_id=("a", "b", None)[n % 3], scope=("session", "other")[n % 2]
            )
            for n in range(9)
        ]
        made.sort(key=lambda item: (item.created_at, item.id), reverse=True)
        assert await memory.list() == made
        for arguments, chosen in (
            ({"session_id": "a"}, [m for m in made if m.session_id == "a"]),
            ({"scope": "other"}, [m for m in made if m.scope == "other"]),
            (
                {"session_id": "b", "scope": "session"},
                [m for m in made if (m.session_id, m.scope) == ("b", "session")],
            ),
            ({"filters": {"session_id": None}}, [m for m in made if m.session_id is None]),
            ({"filters": {"key": {"$gte": "key-7"}}}, [m for m in made if m.key >= "key-7"]),
            (
                {"since": made[2].created_at},
                [m for m in made if m.created_at >= made[2].created_at],
            ),
            ({"until": made[2].created_at}, [m for m in made if m.created_at < made[2].created_at]),
        ):
            wanted: dict[str, Any] = arguments
            assert await memory.list(**wanted) == chosen
            assert await memory.count(**wanted) == len(chosen)
        assert await memory.list(limit=2, after=made[3].id) == made[4:6]
        with pytest.raises(NotFoundError, match="mem-missing"):
            await memory.list(after="mem-missing")

    # Time to live

    async def test_an_expired_item_is_never_returned(self, memory: MemoryRepository) -> None:
        item = await memory.set("gone", "secret", ttl_seconds=AT_ONCE)
        assert item.expires_at == item.created_at + timedelta(microseconds=1)
        kept = await memory.set("kept", 1, ttl_seconds=3600)
        assert await memory.get("gone") is None
        assert await memory.list() == [kept]
        assert await memory.list(filters={"key": "gone"}) == []
        assert await memory.count() == 1
        assert await memory.count(filters={"key": "gone"}) == 0
        with pytest.raises(NotFoundError, match="gone"):
            await memory.delete("gone")

    async def test_an_expired_item_is_replaced_by_a_new_one(self, memory: MemoryRepository) -> None:
        old = await memory.set("key", 1, ttl_seconds=AT_ONCE)
        new = await memory.set("key", 2)
        assert new.id != old.id
        assert new.created_at > old.created_at
        assert new.created_at == new.updated_at
        assert (new.value, new.expires_at) == (2, None)
        assert await memory.list() == [new]

    async def test_purge_deletes_what_has_expired(self, memory: MemoryRepository) -> None:
        assert await memory.purge() == 0
        for n in range(3):
            await memory.set(f"old-{n}", n, ttl_seconds=AT_ONCE)
        await memory.set("kept", 1, ttl_seconds=3600)
        await memory.set("for good", 1)
        assert await memory.purge() == 3
        assert await memory.purge() == 0
        assert sorted(item.key for item in await memory.list()) == ["for good", "kept"]

    async def test_clear_forgets_a_session_or_a_scope(self, memory: MemoryRepository) -> None:
        for n in range(3):
            await memory.set(f"key-{n}", n, session_id="a")
            await memory.set(f"key-{n}", n, session_id="b")
            await memory.set(f"key-{n}", n, session_id="a", scope="other")
        await memory.set("old", 1, session_id="a", ttl_seconds=AT_ONCE)
        with pytest.raises(InvalidValueError, match="session_id or a scope"):
            await memory.clear()
        assert await memory.clear(session_id="a", scope="session") == 4
        assert await memory.count() == 6
        assert await memory.clear(scope="other") == 3
        assert await memory.clear(session_id="b") == 3
        assert await memory.clear(session_id="b") == 0
        assert ids(await memory.list()) == []

    # Bad input

    async def test_values_that_are_no_json(self, memory: MemoryRepository) -> None:
        bad: tuple[Any, ...] = (
            math.nan,
            [math.inf],
            {"a": -math.inf},
            {1: 2},
            {None: 1},
            {1, 2},
            b"bytes",
            object(),
            1j,
            "a\0b",
            ["\ud800"],
            {"a\0": 1},
            "x" * (8 * 1024 * 1024),
        )
        for value in bad:
            with pytest.raises(InvalidValueError, match="value"):
                await memory.set("key", value)
        assert await memory.count() == 0

    async def test_bad_keys_sessions_and_scopes(self, memory: MemoryRepository) -> None:
        bad: tuple[Any, ...] = ("", " ", "a\0", "\ud800", "x" * 513, 5, b"key")
        for text in bad:
            for place in ({"key": text}, {"session_id": text}, {"scope": text}):
                arguments: dict[str, Any] = {"key": "key", **place}
                with pytest.raises(InvalidValueError):
                    await memory.set(value=1, **arguments)
                with pytest.raises(InvalidValueError):
                    await memory.get(**arguments)
                with pytest.raises(InvalidValueError):
                    await memory.delete(**arguments)
        longest = "ö" * 256
        item = await memory.set(longest, 1, session_id=longest, scope=longest)
        assert await memory.get(longest, session_id=longest, scope=longest) == item
        assert await memory.count() == 1

    async def test_times_to_live_that_make_no_sense(self, memory: MemoryRepository) -> None:
        bad: tuple[Any, ...] = (0, -1, -1e-9, math.nan, math.inf, 1e300, 1e12, True, "60")
        for seconds in bad:
            with pytest.raises(InvalidValueError, match="ttl_seconds"):
                await memory.set("key", 1, ttl_seconds=seconds)
        assert await memory.count() == 0

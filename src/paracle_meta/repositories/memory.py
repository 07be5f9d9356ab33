"""What is remembered between the steps of a session."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from paracle_meta import schema
from paracle_meta.exceptions import InvalidValueError, NotFoundError
from paracle_meta.filters import Condition, Operator, where
from paracle_meta.records import MemoryItem, utc_now
from paracle_meta.repositories.base import DEFAULT_PAGE, Reader
from paracle_meta.validation import check_record
from paracle_meta.values import check_float, check_text

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_SCOPE = "session"


class MemoryRepository(Reader[MemoryItem]):
    """Keeps values under a key, unique within a scope and session.

    A scope is any word; `session` is the usual one. An item with a time to live is never returned
    after it, whether it was purged or not.
    """

    table = schema.MEMORY

    async def set(
        self,
        key: str,
        value: Any,
        *,
        session_id: str | None = None,
        scope: str = DEFAULT_SCOPE,
        ttl_seconds: float | None = None,
    ) -> MemoryItem:
        """Remember a value, replacing the one that was there.

        Args:
            key: Its name.
            value: Any JSON value: None, a bool, number, text, list or dict with text keys.
            session_id: The session it belongs to, or None for none.
            scope: The scope it belongs to.
            ttl_seconds: Seconds to keep it; None keeps it until it is deleted.

        Raises:
            InvalidValueError: The value is no JSON, or an argument is outside what is allowed.
        """
        now = utc_now()
        item = MemoryItem(
            key=key,
            value=value,
            session_id=session_id,
            scope=scope,
            created_at=now,
            updated_at=now,
            expires_at=None if ttl_seconds is None else _expiry(now, ttl_seconds),
        )
        values = check_record(self.table, item, self._database.settings.content_limit)
        backend = await self._database.backend()
        return await backend.put_memory(values, now)

    async def get(
        self, key: str, *, session_id: str | None = None, scope: str = DEFAULT_SCOPE
    ) -> MemoryItem | None:
        """Return the item under a key, its value with its type, or None.

        Args:
            key: Its name.
            session_id: The session it belongs to, or None for none.
            scope: The scope it belongs to.

        Raises:
            InvalidValueError: No item can have this key, session or scope.
        """
        self._check_address(key, session_id, scope)
        backend = await self._database.backend()
        return await backend.get_memory(scope, session_id, key, utc_now())

    async def delete(
        self, key: str, *, session_id: str | None = None, scope: str = DEFAULT_SCOPE
    ) -> None:
        """Forget the item under a key.

        Raises:
            NotFoundError: There is none.
        """
        self._check_address(key, session_id, scope)
        backend = await self._database.backend()
        if not await backend.delete_memory(scope, session_id, key, utc_now()):
            raise NotFoundError(f"Nothing is remembered under the key {key!r:.90}.")

    async def list(
        self,
        limit: int = DEFAULT_PAGE,
        after: str | None = None,
        *,
        session_id: str | None = None,
        scope: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> list[MemoryItem]:
        """Return a page of living items, newest first.

        Args:
            limit: How many at most, 1 to 10,000.
            after: The id of the last item of the page before.
            session_id: Only of this session; of every session unless given.
            scope: Only of this scope; of every scope unless given.
            since: Only first set at this time or later.
            until: Only first set before this time.
            filters: Further conditions, such as ``{"session_id": None}`` for no session.

        Raises:
            InvalidValueError: An argument is outside what is allowed.
            NotFoundError: No item has the id `after`.
        """
        conditions = self._conditions(since, until, filters, session_id=session_id, scope=scope)
        return await self._page(limit, after, [*conditions, self._living()])

    async def count(
        self,
        *,
        session_id: str | None = None,
        scope: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> int:
        """Return how many items `list` would return in all."""
        conditions = self._conditions(since, until, filters, session_id=session_id, scope=scope)
        return await self._count([*conditions, self._living()])

    async def clear(self, *, session_id: str | None = None, scope: str | None = None) -> int:
        """Forget all items of a session, a scope, or a scope within a session.

        Returns:
            How many items were stored, expired ones included.

        Raises:
            InvalidValueError: Neither a session nor a scope was given.
        """
        conditions = self._conditions(None, None, None, session_id=session_id, scope=scope)
        if not conditions:
            raise InvalidValueError("clear needs a session_id or a scope.")
        backend = await self._database.backend()
        return await backend.delete_where(self.table, conditions)

    async def purge(self, *, dry_run: bool = False) -> int:
        """Delete the items whose time is over, and return how many there were.

        Args:
            dry_run: Only count them.
        """
        over = (where(self.table, "expires_at", Operator.LTE, utc_now()),)
        backend = await self._database.backend()
        if dry_run:
            return await backend.count(self.table, over)
        return await backend.delete_where(self.table, over)

    def _living(self) -> Condition:
        return where(self.table, "expires_at", Operator.NOT_PAST, utc_now())

    def _check_address(self, key: str, session_id: str | None, scope: str) -> None:
        for name, text in (("key", key), ("scope", scope), ("session_id", session_id)):
            if text is not None or name != "session_id":
                check_text(f"memory.{name}", text, schema.MAX_LABEL_BYTES, required=True)


def _expiry(now: datetime, ttl_seconds: float) -> datetime:
    seconds = check_float("ttl_seconds", ttl_seconds)
    if seconds <= 0:
        raise InvalidValueError("ttl_seconds must be above 0; None keeps an item for good.")
    try:
        return now + timedelta(seconds=seconds)
    except OverflowError:
        raise InvalidValueError("ttl_seconds reaches beyond the year 9999.") from None

"""What a `MetaDatabase` has open: one backend and one embedding provider an event loop."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from paracle_meta.backends import create_backend
from paracle_meta.backends.collections import VectorSpace
from paracle_meta.embeddings import get_embedding_provider

if TYPE_CHECKING:
    from paracle_meta.backends.base import Backend
    from paracle_meta.config import DatabaseSettings
    from paracle_meta.embeddings.base import EmbeddingProvider


@dataclass(slots=True)
class _Opened:
    """What one event loop uses: connections belong to the loop that made them."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    backend: Backend | None = None
    provider: EmbeddingProvider | None = None


class Connections:
    """Opens at the first use, in each event loop and each forked process anew."""

    def __init__(self, settings: DatabaseSettings, provider: EmbeddingProvider | None) -> None:
        """Remember what to open.

        Args:
            settings: Where the database is and how to treat it.
            provider: What turns texts into vectors, instead of the configured one; it is not
                closed here.
        """
        self._settings = settings
        self._given_provider = provider
        self._opened: dict[asyncio.AbstractEventLoop, _Opened] = {}
        self._process = os.getpid()
        self._left_to_parent: list[object] = []

    @property
    def open_backend(self) -> Backend | None:
        """The backend of this event loop, if it is open."""
        return self._here().backend

    async def backend(self) -> Backend:
        """Return the backend of this event loop, opened."""
        opened = self._here()
        if opened.backend is None:
            async with opened.lock:
                if opened.backend is None:
                    backend = self._create(opened)
                    try:
                        await backend.open()
                    except BaseException:
                        await backend.close()
                        raise
                    opened.backend = backend
        return opened.backend

    def provider(self) -> EmbeddingProvider:
        """Return the embedding provider of this event loop."""
        return self._provider(self._here())

    def unopened(self) -> Backend:
        """Return a new backend that is not open; it is the caller's to close."""
        return self._create(self._here())

    def detached(self) -> Backend:
        """Return a new backend for what needs neither a connection nor an event loop."""
        return self._create(_Opened())

    async def close(self) -> None:
        """Close what this event loop has open. Safe to repeat."""
        opened = self._here()
        backend, opened.backend = opened.backend, None
        provider, opened.provider = opened.provider, None
        try:
            if backend is not None:
                await backend.close()
        finally:
            if provider is not None and provider is not self._given_provider:
                await provider.close()

    def _provider(self, opened: _Opened) -> EmbeddingProvider:
        if opened.provider is None:
            opened.provider = self._given_provider or get_embedding_provider(self._settings)
        return opened.provider

    def _create(self, opened: _Opened) -> Backend:
        space = None
        if self._settings.enable_vectors:
            provider = self._provider(opened)
            space = VectorSpace(provider.model_id, provider.dimensions)
        return create_backend(self._settings, space)

    def _here(self) -> _Opened:
        if self._process != os.getpid():
            # A forked child shares its parent's sockets and file locks. They are neither used nor
            # closed here, as that would end them for the parent too.
            self._left_to_parent.append(self._opened)
            self._opened = {}
            self._process = os.getpid()
        loop = asyncio.get_running_loop()
        opened = self._opened.get(loop)
        if opened is None:
            # What a loop has opened refers to it, so it would never go by itself.
            for ended in [other for other in self._opened if other.is_closed()]:
                del self._opened[ended]
            opened = self._opened[loop] = _Opened()
        return opened

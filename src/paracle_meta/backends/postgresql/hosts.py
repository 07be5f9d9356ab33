"""The servers that a URL names: each is tried in its turn, and has a time-out of its own."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

import asyncpg

from paracle_meta.backends.postgresql.errors import DRIVER_ERRORS, is_lost
from paracle_meta.urls import resolve_url, single_host_urls

if TYPE_CHECKING:
    from pydantic import SecretStr

SILENT_SECONDS: Final = 10.0
"""How long a host that did not answer in time is tried last: the wait is not paid for by every
connection. The PostgreSQL JDBC driver's `hostRecheckSeconds` is as long."""

PREFER_STANDBY: Final = "prefer-standby"
"""The one `target_session_attrs` by which a host is taken only after all others were looked at."""


class PostgresHosts:
    """Makes connections to the first host of a URL that answers and is what the URL asks for.

    asyncpg knows several hosts too, but gives them one time-out together, so that a first host
    which never answers leaves none for the others.
    """

    def __init__(self, url: SecretStr) -> None:
        self._url = url
        self._silent: dict[int, float] = {}

    async def connect(self, _dsn: None = None, **arguments: Any) -> Any:
        """Return a connection; a password from the environment is read anew for each.

        asyncpg itself reads sslmode, target_session_attrs and PGPASSFILE from the URL and the
        environment.

        Args:
            _dsn: None, which is what asyncpg's pool passes.
            **arguments: For `asyncpg.connect`; its `timeout` is that of one host.
        """
        urls = self._urls()
        failures: list[Exception] = []
        for host in sorted(range(len(urls)), key=self._is_silent):
            try:
                connection = await asyncpg.connect(urls[host], **arguments)
            except DRIVER_ERRORS as error:
                silent = isinstance(error, TimeoutError)
                if silent:
                    self._silent[host] = time.monotonic()
                elif not is_lost(error):
                    raise  # It has answered, as to a wrong password: others would say the same.
                failures.append(error)
            else:
                self._silent.pop(host, None)
                return connection
        raise failures[-1]

    def _is_silent(self, host: int) -> bool:
        return time.monotonic() - self._silent.get(host, float("-inf")) < SILENT_SECONDS

    def _urls(self) -> list[str]:
        url = resolve_url(self._url).replace("postgresql+asyncpg://", "postgresql://", 1)
        wanted = dict(parse_qsl(urlsplit(url).query)).get(
            "target_session_attrs", os.environ.get("PGTARGETSESSIONATTRS")
        )
        return [url] if wanted == PREFER_STANDBY else single_host_urls(url)

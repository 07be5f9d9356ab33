"""What the providers behind an HTTP server share: addresses, clients, and what a refusal means.

Time-out and retries are left to `BaseEmbeddings`, so the clients' own are off. Redirects are never
followed: they could carry text and key to another host. Proxies of the environment (`HTTPS_PROXY`)
are used, except for a server on this machine: a text for it must not leave the machine.
"""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import math
from abc import abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from paracle_meta.embeddings.base import BaseEmbeddings, Failure
from paracle_meta.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Client(Protocol):
    """What is asked of a client here: that it can be closed."""

    async def close(self) -> None:
        """Close its connections."""


ClientT = TypeVar("ClientT", bound=Client)


@dataclass(frozen=True)
class Advice:
    """What to do about a refusal, in the names of one provider's settings.

    Attributes:
        address: the setting that holds the address.
        denied: after 401 and 403.
        missing: after 404.
    """

    address: str
    denied: str
    missing: str


class HTTPEmbeddings(BaseEmbeddings, Generic[ClientT]):
    """A provider that holds a client of an optional package, made at its first use.

    A client belongs to the event loop it was made in, so each loop (a second `asyncio.run`, a
    forked child) has its own, and `close` closes that of the running loop.
    """

    _package: str  # both the name to import and the extra that brings it

    def __init__(
        self,
        model_id: str,
        dimensions: int,
        *,
        timeout: float,
        max_retries: int,
        batch_size: int,
        backoff: float,
    ) -> None:
        super().__init__(
            model_id,
            dimensions,
            timeout=timeout,
            max_retries=max_retries,
            batch_size=batch_size,
            backoff=backoff,
        )
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, ClientT] = WeakKeyDictionary()

    @abstractmethod
    def _new_client(self) -> ClientT:
        """Make a client; the package is imported already."""

    async def _client(self) -> ClientT:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            try:
                # These packages take up to a second to import: the loop goes on meanwhile.
                await asyncio.to_thread(importlib.import_module, self._package)
            except ImportError as exc:
                raise ConfigurationError(
                    f"{type(self).__name__} needs the package {self._package!r}: "
                    f"pip install 'paracle-meta[{self._package}]'"
                ) from exc
            # Looked at again, since another task may have been faster; no await from here on.
            if loop not in self._clients:
                self._clients[loop] = self._new_client()
        return self._clients[loop]

    async def close(self) -> None:
        """See `EmbeddingProvider.close`."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()


def checked_dimensions(
    model: str, own: int | None, wanted: int | None, *, shortenable: bool
) -> tuple[int, bool]:
    """The length of a model's vectors, and whether it must be asked for.

    Args:
        model: the model's name, for messages.
        own: the length the model gives unasked, None where that is not known here.
        wanted: the length that is configured, None for the model's own.
        shortenable: whether the model can be asked for a shorter one.

    Raises:
        ConfigurationError: nothing is known, or the model cannot give that length.
    """
    if own is None:
        if wanted is None:
            raise ConfigurationError(
                f"How many dimensions the vectors of {model!r} have is not known here: set "
                "embedding_dimensions."
            )
        return wanted, False
    if wanted is None or wanted == own:
        return own, False
    if not (shortenable and 0 < wanted < own):
        raise ConfigurationError(
            f"embedding_dimensions cannot be {wanted} for {model!r}, whose vectors have {own}."
        )
    return wanted, True


def checked_url(url: str, setting: str) -> str:
    """The address, if it is one that may be used and shown in messages.

    Raises:
        ConfigurationError: not http(s), no host, or a password inside.
    """
    try:
        parts = urlsplit(url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise ConfigurationError(
            f"{setting} must be an address like http://localhost:11434 or https://host/v1."
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(f"{setting} must not hold a user name or password.")
    if parts.query or parts.fragment:
        raise ConfigurationError(f"{setting} must end after its path, without '?' or '#'.")
    return url


def uses_proxy(url: str) -> bool:
    """Whether proxies of the environment may be used: not for a server on this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name
        return True
    return not (address.is_loopback or address.is_unspecified)


def failed_status(status: int, headers: Mapping[str, str], url: str, advice: Advice) -> Failure:
    """What an HTTP status other than 200 means. The server's own words are not looked at."""
    said = f"HTTP {status}"
    if 300 <= status < 400:
        return Failure(
            f"{url} redirects elsewhere ({said}), which is not followed; set {advice.address} to "
            "the final address"
        )
    if status in {401, 403}:
        return Failure(f"access denied ({said}); {advice.denied}")
    if status == 404:
        return Failure(f"not found ({said}) at {url}; {advice.missing}")
    if status in {400, 413, 422}:
        return Failure(
            f"refused ({said}); where only some texts are, they are most often longer than the "
            "model takes, otherwise look at the settings of model and dimensions",
            about_text=True,
        )
    if status == 429:
        return Failure(
            f"too many requests ({said}); try again later or lower embedding_batch_size",
            retry=True,
            retry_after=_retry_after(headers),
        )
    if status == 408 or status >= 500:
        return Failure(
            f"the server at {url} failed ({said}); its log says why",
            # 500 is also how a server fails over one text (Ollama, when its vector holds NaN); the
            # other numbers come from gateways and say that nobody looked at the texts.
            about_text=status == 500,
            retry=True,
            retry_after=_retry_after(headers),
        )
    return Failure(f"refused ({said}) by {url}; look at {advice.address}")


def failed_connection(exc: BaseException, url: str, advice: Advice) -> Failure:
    """What it means that no complete answer came."""
    return Failure(
        f"no connection to {url}, or it broke; check that the server runs and {advice.address} is "
        "right",
        retry=True,
        cause=_system_error(exc),
    )


def unreadable(url: str, advice: Advice, *, retry: bool = False) -> Failure:
    """What it means that an answer came and is not the JSON it should be.

    Args:
        url: where it came from.
        advice: the names of the provider's settings.
        retry: it is no JSON at all, as when it was cut off on its way.
    """
    return Failure(
        f"the answer of {url} holds no embeddings; check that {advice.address} leads to the right "
        "server",
        retry=retry,
    )


def _system_error(exc: BaseException | None) -> OSError | None:
    """The innermost error of the operating system in a chain.

    Only this one is kept: the clients' errors around it may quote what was sent (a header that
    cannot be sent is quoted with its key).
    """
    found: OSError | None = None
    while exc is not None:
        if isinstance(exc, OSError) and exc.errno is not None:
            found = exc
        exc = exc.__cause__ or exc.__context__
    return found


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the Retry-After header asks for (RFC 9110, 10.2.3: a number or a date)."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        # A date without a zone is meant as UTC.
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (date - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None

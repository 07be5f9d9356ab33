"""Database URLs: which are taken, how they are shown, and where their password comes from."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from paracle_meta.exceptions import ConfigurationError

if TYPE_CHECKING:
    from pydantic import SecretStr

MASK = "**********"
"""Shown instead of a secret; the same ten stars that pydantic's SecretStr shows."""

POSTGRES_URL = re.compile(
    r"(?:postgresql|postgres|postgresql\+asyncpg)://"
    r"(?:[^:@/?#\s]*(?::(?P<password>[^/?#\s]*))?@)?"
    # One host or several; a host may be missing, then the driver takes PGHOST or the local socket.
    r"(?P<hosts>(?:\[[^\]\s]*\]|[^:@/?#,\[\]\s]*)(?::\d*)?"
    r"(?:,(?:\[[^\]\s]*\]|[^:@/?#,\[\]\s]*)(?::\d*)?)*)"
    r"(?:/[^@/?#\s]*)?"
    r"(?:\?(?P<query>[^=&#\s]+=[^&#\s]*(?:&[^=&#\s]+=[^&#\s]*)*)?)?"
)
# The library's own pattern and not urlsplit: that drops line breaks without a word, and its error
# messages quote the URL with the password.
HTTP_URL = re.compile(r"https?://(?:\[[^\]\s]*\]|[^:@/?#\[\]\s]+)(?::\d{1,5})?(?:/[^?#\s]*)?")
ENV_PASSWORD = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
_SECRET_PARAMETERS = {"password", "sslpassword"}  # what libpq reads as secrets from a URL's query


def mask_url(url: str) -> str:
    """Return a database URL as it may be shown: passwords replaced, `env:NAME` kept."""
    match = POSTGRES_URL.fullmatch(url)
    if match is None:
        return MASK
    if query := match["query"]:
        pairs = (pair.partition("=") for pair in query.split("&"))
        shown = "&".join(
            f"{key}={MASK if unquote(key).lower() in _SECRET_PARAMETERS else value}"
            for key, _, value in pairs
        )
        url = url[: match.start("query")] + shown
    password = match["password"]
    if password and not ENV_PASSWORD.fullmatch(unquote(password)):
        start, end = match.span("password")
        url = url[:start] + MASK + url[end:]
    return url


def single_host_urls(url: str) -> list[str]:
    """Return a PostgreSQL URL once for each host before its slash, with that one only."""
    match = POSTGRES_URL.fullmatch(url)
    if match is None:
        return [url]
    start, end = match.span("hosts")
    return [f"{url[:start]}{host}{url[end:]}" for host in match["hosts"].split(",")]


def resolve_url(url: SecretStr) -> str:
    """Return the URL with its real password, for the moment a connection is made.

    Args:
        url: as in the settings; a password `env:NAME` stands for the environment variable NAME,
            which is read anew at each call, so that a changed password needs no new settings.

    Raises:
        ConfigurationError: the environment variable is not set.
    """
    text = url.get_secret_value()
    match = POSTGRES_URL.fullmatch(text)
    named = match and ENV_PASSWORD.fullmatch(unquote(match["password"] or ""))
    if not match or not named:
        return text
    password = os.environ.get(named[1])
    if password is None:
        raise ConfigurationError(
            f"The database URL takes its password from the environment variable {named[1]}, "
            "which is not set. Set it, or write another env:NAME into the URL."
        )
    start, end = match.span("password")
    return text[:start] + quote(password, safe="") + text[end:]

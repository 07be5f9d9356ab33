"""A proxy before a PostgreSQL server that cuts a connection at a decided byte of a commit."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from types import TracebackType

# https://www.postgresql.org/docs/current/protocol-message-formats.html
TYPED_HEADER: Final = 5
"""Bytes of a message's type and length; the length counts itself and not the type."""
UNTYPED_HEADER: Final = 8
"""Bytes of the length and code of the messages before a connection has begun."""
STARTUP: Final = 196608
"""The code of the message after which all have a type: protocol 3.0."""


@dataclass(frozen=True)
class Cut:
    """Where a commit is cut off.

    Attributes:
        side: Within what the client sends, or within what the server answers.
        share: After which part of its bytes: 0 to 1. A whole request has reached the server, which
            carries it out while nobody hears its answer; an answer never arrives whole.
        statement: How the statement begins, one without parameters.
    """

    side: Literal["request", "answer"]
    share: float
    statement: bytes = b"COMMIT"

    def is_of(self, kind: bytes, message: bytes) -> bool:
        """Whether a message is the statement."""
        return kind == b"Q" and message[TYPED_HEADER:].startswith(self.statement)


class CommitCutter:
    """Passes bytes on to a server, and cuts the commits that `cuts` asks for, one each.

    A commit is the statement COMMIT, or any statement that runs outside of a transaction. Used as
    an asynchronous context manager.

    Args:
        host: Of the server.
        port: Of the server.

    Attributes:
        port: Of the proxy, on 127.0.0.1.
        cuts: Those still to come, each taken by the next commit.
        made: How many were made.
        ending: For each connection that was cut, whether the server has ended its side.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._listening: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()
        self.ending: list[asyncio.Event] = []
        self.port = 0
        self.cuts: deque[Cut] = deque()
        self.made = 0

    async def __aenter__(self) -> CommitCutter:
        self._listening = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._listening is not None
        self._listening.close()
        for task in self._passing:
            task.cancel()
        if self._passing:
            await asyncio.wait(self._passing)

    async def settled(self) -> None:
        """Wait until the server has done what it does about the connections that were cut."""
        while self.ending:
            await self.ending.pop().wait()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._server)
            try:
                await _Passage(self, reader, writer, server_reader, server_writer).run()
            finally:
                server_writer.close()
        except (OSError, EOFError, asyncio.CancelledError):
            # One side has gone, or the test has ended: so goes the other.
            pass
        finally:
            writer.close()


class _Passage:
    """One connection: messages go to the server in groups, each of which has one answer."""

    def __init__(
        self,
        cutter: CommitCutter,
        client_reader: asyncio.StreamReader,
        client_writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        self._cutter = cutter
        self._client = client_reader, client_writer
        self._server = server_reader, server_writer
        self._answered = asyncio.Event()
        self._ended = asyncio.Event()
        self._status = b"I"
        self._answer: bytearray | None = None
        """What the server has said to a request whose answer is to be cut."""

    async def run(self) -> None:
        await self._begin()
        sides = {asyncio.create_task(self._requests()), asyncio.create_task(self._answers())}
        try:
            await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)
            self._ended.set()

    async def _begin(self) -> None:
        """Pass on the messages that have no type: a question for TLS, then the startup."""
        code = 0
        while code != STARTUP:
            header = await self._client[0].readexactly(UNTYPED_HEADER)
            length, code = struct.unpack("!ii", header)
            rest = await self._client[0].readexactly(length - UNTYPED_HEADER)
            await _send(self._server[1], header + rest)
            if code != STARTUP:  # The answer to a question is one letter; a cancellation has none.
                await _send(self._client[1], await self._server[0].readexactly(1))

    async def _requests(self) -> None:
        group = b""
        runs = False
        while True:
            kind, message = await _read_message(self._client[0])
            group += message
            runs = runs or kind == b"E"  # Execute.
            runs_alone = kind == b"S" and runs and self._status == b"I"
            if self._cutter.cuts and (runs_alone or self._cutter.cuts[0].is_of(kind, message)):
                await self._cut(group, self._cutter.cuts.popleft())
            if kind in b"QSHcdfXp":  # All after which the client waits for something.
                await _send(self._server[1], group)
                group = b""
            runs = runs and kind != b"S"

    async def _cut(self, group: bytes, cut: Cut) -> None:
        self._cutter.made += 1
        self._cutter.ending.append(self._ended)
        self._answer = bytearray()
        if cut.side == "request":
            await _send(self._server[1], group[: round(cut.share * len(group))])
        else:
            await _send(self._server[1], group)
            await self._answered.wait()
            await _send(self._client[1], bytes(self._answer[: int(cut.share * len(self._answer))]))
        self._client[1].close()
        self._server[1].write_eof()
        await self._ended.wait()  # As soon as the server has closed its side too.

    async def _answers(self) -> None:
        while True:
            kind, message = await _read_message(self._server[0])
            if self._answer is None:
                await _send(self._client[1], message)
            else:
                self._answer += message
            if kind == b"Z":  # Ready for the next request, with the state of the transaction.
                self._status = message[TYPED_HEADER:]
                if self._answer is not None:
                    self._answered.set()


async def _read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    header = await reader.readexactly(TYPED_HEADER)
    kind, length = struct.unpack("!ci", header)
    return kind, header + await reader.readexactly(length - (TYPED_HEADER - 1))


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()

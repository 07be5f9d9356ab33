"""A real HTTP server on this machine that speaks the embedding protocols of OpenAI and Ollama.

    with EmbeddingServer() as server:
        provider = OllamaEmbeddings(base_url=server.url)
        provider = OpenAIEmbeddings("sk-test", base_url=server.openai_url)

The vector of a text comes from its words alone: the same in every process, and near to the vector
of a text that shares words. Errors are planned with `server.plan(...)`, one `Answer` a request.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# What each model gives unasked; any other has the server's `dimensions`.
DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
    "nomic-embed-text": 768,
    "mxbai-embed-large": 1024,
    "all-minilm": 384,
}


@dataclass(frozen=True)
class Answer:
    """How one request is answered; by default as a healthy server does.

    `alter` changes the document of a good answer, `body` replaces it, `cut` ends the connection in
    the middle of it, `hang` says nothing until the client or the server goes away.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    alter: Callable[[dict[str, Any]], object] | None = None
    body: bytes | None = None
    cut: bool = False
    hang: bool = False


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: dict[str, Any]

    @property
    def texts(self) -> list[str]:
        given = self.body["input"]
        return [given] if isinstance(given, str) else given


class EmbeddingServer:
    """Listens on a free port of 127.0.0.1 from `__enter__` to `__exit__`.

    Attributes:
        requests: every request so far.
        refuses: texts for which a whole batch is refused, as servers do; the error quotes the text.
        refuse_status: the status it is refused with.
        arrived: set whenever a request has arrived; for tests that wait for that.
    """

    def __init__(self, *, dimensions: int = 64) -> None:
        self.dimensions = dimensions
        self.requests: list[Received] = []
        self.refuses: set[str] = set()
        self.refuse_status = 400
        self.arrived = threading.Event()
        self._planned: deque[Answer] = deque()
        self._forever: Answer | None = None
        self._stopping = threading.Event()
        self._http = _Server(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        # Short polling, since every test waits for it once.
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def texts(self) -> list[list[str]]:
        """The texts of every request so far."""
        return [request.texts for request in self.requests]

    def plan(self, *answers: Answer) -> None:
        """Answer the next requests like this, one each; afterwards healthily again."""
        self._planned.extend(answers)

    def always(self, answer: Answer) -> None:
        """Answer every further request like this."""
        self._forever = answer

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _next_answer(self) -> Answer:
        if self._planned:
            return self._planned.popleft()
        return self._forever or Answer()

    def _respond(self, request: Received) -> tuple[Answer, bytes]:
        answer = self._next_answer()
        if answer.body is not None:
            return answer, answer.body
        if answer.status != 200:
            return answer, _error(request.path, f"planned {answer.status}")
        bad = [text for text in request.texts if text in self.refuses]
        if bad:
            # Word for word as real servers quote what they refuse.
            return Answer(status=self.refuse_status), _error(
                request.path, f"cannot embed {bad[0]!r}"
            )
        document = self._document(request)
        if answer.alter is not None:
            answer.alter(document)
        return answer, json.dumps(document).encode()

    def _document(self, request: Received) -> dict[str, Any]:
        model = request.body["model"]
        length = request.body.get("dimensions") or DIMENSIONS.get(
            model.partition(":")[0], self.dimensions
        )
        vectors = [vector_of(text, length) for text in request.texts]
        if request.path == "/api/embed":
            return {"model": model, "embeddings": vectors}
        return {
            "object": "list",
            "model": model,
            "data": [
                {"object": "embedding", "index": index, "embedding": vector}
                for index, vector in enumerate(vectors)
            ],
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                request = Received(
                    self.path,
                    {name.lower(): value for name, value in self.headers.items()},
                    json.loads(self.rfile.read(size)),
                )
                server.requests.append(request)
                server.arrived.set()
                if self.path not in {"/v1/embeddings", "/api/embed"}:
                    self.answer(Answer(status=404), _error(self.path, "no such path"))
                else:
                    self.answer(*server._respond(request))

            def answer(self, answer: Answer, body: bytes) -> None:
                if answer.hang:
                    server._stopping.wait()
                    self.close_connection = True
                    return
                headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
                self.send_response(answer.status)
                for name, value in (headers | dict(answer.headers)).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if answer.cut else body)
                if answer.cut:
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Keep stderr for the tests."""

        return Handler


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that timed out or was cancelled hangs up, and that is no error here.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def vector_of(text: str, dimensions: int) -> list[float]:
    """A unit vector made of the words of a text: each adds to eight places that its hash names."""
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()) or [text]:
        digest = hashlib.sha256(word.encode()).digest()
        for place in range(0, 32, 4):
            number = int.from_bytes(digest[place : place + 4], "big")
            vector[number % dimensions] += 1.0 if number & 0x8000_0000 else -1.0
    # Never zero, however the words cancel each other.
    vector[0] += 1e-3
    length = math.sqrt(math.fsum(number * number for number in vector))
    return [number / length for number in vector]


def _error(path: str, message: str) -> bytes:
    if path.startswith("/api/"):
        return json.dumps({"error": message}).encode()
    return json.dumps({"error": {"message": message, "code": None, "param": None}}).encode()

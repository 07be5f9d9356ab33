"""The code blocks and links of a Markdown page, and how a block of Python is run."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from markdown_it.token import Token

ROOT = Path(__file__).parents[2]

_NOT_RUN = re.compile(r"\s*<!-- not run: (.+?) -->\s*")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    `line` is where its code begins in the page, `heading` what it stands under, and `not_run` the
    reason that a comment right above it gives for not running it: ``<!-- not run: reason -->``.
    """

    page: Path
    language: str
    code: str
    line: int
    heading: str
    not_run: str | None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def tokens_of(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8"))


def blocks_of(page: Path, *languages: str) -> list[Block]:
    """Return the blocks of a page in these languages, in order."""
    blocks = []
    heading, comment = "", None
    for position, (token, following) in enumerate(_pairs(tokens_of(page))):
        if token.type == "heading_open" and following is not None:
            heading = following.content
        if token.type == "fence":
            assert token.map is not None, position
            language = token.info.split(" ")[0]
            if language in languages:
                line = token.map[0] + 2
                blocks.append(Block(page, language, token.content, line, heading, comment))
        match = _NOT_RUN.fullmatch(token.content) if token.type == "html_block" else None
        comment = match[1] if match else None
    return blocks


def _pairs(tokens: list[Token]) -> Iterator[tuple[Token, Token | None]]:
    return zip(tokens, [*tokens[1:], None], strict=True)


def links_of(page: Path) -> list[str]:
    """Return the targets of all links and images of a page."""
    inline = [child for token in tokens_of(page) for child in token.children or []]
    targets = [child.attrGet("href") or child.attrGet("src") for child in inline]
    return [str(target) for target in targets if target is not None]


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that a code host gives the headings of a page."""
    headings = [
        following.content
        for token, following in _pairs(tokens_of(page))
        if token.type == "heading_open" and following is not None
    ]
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in words}


class Assigned(dict[str, Any]):
    """A namespace that keeps every value a name was given, not only the last."""

    def __init__(self, **values: Any) -> None:
        super().__init__(values)
        self.history: dict[str, list[Any]] = {}

    def __setitem__(self, name: str, value: Any) -> None:
        self.history.setdefault(name, []).append(value)
        super().__setitem__(name, value)


def run_python(
    block: Block, code: str, names: dict[str, Any], local: Assigned | None = None
) -> Awaitable[object] | None:
    """Run a block, as ``python -m asyncio`` would; what it returns is to be awaited.

    Args:
        block: Where the code stands, for tracebacks.
        code: What to run: the block's code, with addresses replaced.
        names: The namespace.
        local: Another one for what the block assigns; `names` itself unless given.
    """
    # Empty lines before it, so that a traceback names the line of the page.
    compiled = compile(
        "\n" * (block.line - 1) + code,
        str(block.page),
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    result = eval(compiled, names, names if local is None else local)
    return result if compiled.co_flags & inspect.CO_COROUTINE else None

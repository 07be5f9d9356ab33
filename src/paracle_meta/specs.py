"""Reading specs: Markdown files with front matter, and best practices in YAML.

What a file may say is told in `examples/README.md` of the project. Nothing is stored here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from paracle_meta.exceptions import InvalidValueError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PRACTICES_FILE: Final = "best_practices.yaml"
"""The file of a folder of specs that holds its best practices."""

NO_TYPE: Final = "document"
"""The artifact type of a file whose folders say nothing."""

_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)^---[ \t]*$\n?", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
_PLURAL = re.compile(r"[a-z]{2,}[^sui]s")
"""A lower-case word with the s of a plural; "corpus", "analysis" and "class" are none."""


@dataclass(frozen=True, slots=True)
class Rating:
    """What somebody thought of a spec.

    Attributes:
        rating: 1 (bad) to 5 (excellent).
        comment: Free text, or None.
    """

    rating: int
    comment: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a file says; see the columns of `GenerationResult`.

    Attributes:
        file: Its path below the folder that was read, with forward slashes.
        artifact_type: From the front matter, else from the folder.
        name: From the front matter, else the first heading, else the name of the file.
        description: One or two sentences, or None.
        content: The text after the front matter.
        text: The whole text of the file.
        provider: Who ran the model that wrote it, or None.
        model: That model, or None.
        input_tokens: Tokens sent, or None.
        output_tokens: Tokens received, or None.
        cost: US dollars, or None where unknown.
        quality_score: 0 to 10, or None.
        ratings: In the order of the file.
    """

    file: str
    artifact_type: str
    name: str
    description: str | None = field(default=None, repr=False)
    content: str = field(repr=False)
    text: str = field(repr=False)
    provider: str | None = None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    quality_score: float | None = None
    ratings: tuple[Rating, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Practice:
    """One entry of a file of best practices; see the columns of `BestPractice`."""

    category: str
    title: str
    content: str = field(repr=False)
    tags: list[str] = field(default_factory=list)
    quality_score: float | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that could not be taken.

    Attributes:
        file: Its path below the folder.
        reason: What is wrong with it.
    """

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder of specs holds.

    Attributes:
        specs: Ordered by file.
        practices: Those of PRACTICES_FILE; none where there is no such file.
        problems: The files that could not be taken.
    """

    specs: list[Spec]
    practices: list[Practice]
    problems: list[Problem]


def read_folder(folder: Path) -> Folder:
    """Read every Markdown file in a folder and below, and its best practices.

    README files and whatever is below a hidden folder are left out. A file that cannot be taken
    does not stop the others.

    Raises:
        NotFoundError: There is no such folder, or nothing in it to take.
    """
    if not folder.is_dir():
        raise NotFoundError(f"There is no folder {folder}; give the folder that holds the files.")
    specs, practices, problems = [], [], []
    for path in _markdown_files(folder):
        file = path.relative_to(folder).as_posix()
        try:
            specs.append(parse_spec(_read(path), file, default_type=_type_of(path, folder)))
        except InvalidValueError as error:
            problems.append(Problem(file, str(error)))
    if (path := folder / PRACTICES_FILE).exists():
        try:
            practices = parse_practices(_read(path), PRACTICES_FILE)
        except InvalidValueError as error:
            problems.append(Problem(PRACTICES_FILE, str(error)))
    if not specs and not practices and not problems:
        raise NotFoundError(
            f"{folder} holds no Markdown file (README files are not taken) and no "
            f"{PRACTICES_FILE}; give a folder that does."
        )
    return Folder(specs, practices, problems)


def _markdown_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*.md")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.stem.upper() != "README" and path.is_file():
            yield path


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise InvalidValueError(f"it cannot be read ({exc.strerror})") from exc
    except UnicodeDecodeError:
        pass
    # Not "from exc": that error holds the whole file.
    raise InvalidValueError("it is not UTF-8 text")


def _type_of(path: Path, folder: Path) -> str:
    """Return what the nearest folder with a plural as its name holds."""
    root = folder.resolve()
    for parent in (root / path.relative_to(folder)).parents:
        if _PLURAL.fullmatch(parent.name):
            name = parent.name
            return f"{name[:-3]}y" if name.endswith("ies") else name[:-1]
        if parent == root:
            break
    return NO_TYPE


def parse_spec(text: str, file: str, *, default_type: str = NO_TYPE) -> Spec:
    """Return what the text of a file says.

    Args:
        text: With or without front matter.
        file: The name of the file, for the spec's own.
        default_type: The artifact type where the front matter has none.

    Raises:
        InvalidValueError: The front matter cannot be read, or a value in it has the wrong type.
            Whether the values are allowed is for the repositories to say.
    """
    match = _FRONT_MATTER.match(text)
    matter = _mapping(_yaml(match[1], offset=1), "the front matter") if match else {}
    content = text[match.end() :].lstrip("\n") if match else text
    heading = _HEADING.search(content)
    return Spec(
        file=file,
        artifact_type=_text(matter, "artifact_type") or default_type,
        name=_text(matter, "name") or (heading[1] if heading else Path(file).stem),
        description=_text(matter, "description"),
        content=content,
        text=text,
        provider=_text(matter, "provider"),
        model=_text(matter, "model"),
        input_tokens=_whole(matter, "input_tokens"),
        output_tokens=_whole(matter, "output_tokens"),
        cost=_number(matter, "cost"),
        quality_score=_number(matter, "quality_score"),
        ratings=tuple(_ratings(matter)),
    )


def _ratings(matter: dict[str, Any]) -> Iterator[Rating]:
    for position, entry in enumerate(_list(matter, "ratings"), start=1):
        rating = _mapping(entry, f"rating {position}")
        number = _whole(rating, "rating")
        if number is None:
            raise InvalidValueError(f"rating {position} has no number (rating: 1 to 5)")
        yield Rating(number, _text(rating, "comment"))


def parse_practices(text: str, file: str) -> list[Practice]:
    """Return the best practices that a YAML text lists.

    Args:
        text: A list of entries with category, title, content and, optionally, tags and
            quality_score.
        file: Its name, for messages.

    Raises:
        InvalidValueError: It is no such list; the message names the entry.
    """
    data = _yaml(text, offset=0)
    if not isinstance(data, list):
        raise InvalidValueError(f"{file} should be a list of best practices, each starting with -")
    practices = []
    seen: dict[tuple[str, str], int] = {}
    for position, value in enumerate(data, start=1):
        where = f"best practice {position} in {file}"
        entry = _mapping(value, where)
        _check_keys(entry, where)
        try:
            practice = _practice(entry)
        except InvalidValueError as error:
            raise InvalidValueError(f"{where}: {error}") from error
        key = (practice.category, practice.title)
        if key in seen:
            raise InvalidValueError(
                f"{where} has the category and title of best practice {seen[key]}"
            )
        seen[key] = position
        practices.append(practice)
    return practices


def _practice(entry: dict[str, Any]) -> Practice:
    return Practice(
        category=_required(entry, "category"),
        title=_required(entry, "title"),
        content=_required(entry, "content"),
        tags=_list(entry, "tags"),
        quality_score=_number(entry, "quality_score"),
    )


def _check_keys(entry: dict[str, Any], where: str) -> None:
    known = list(Practice.__dataclass_fields__)
    for key in entry:
        if key not in known:
            raise InvalidValueError(f"{where} has {key!r:.40}; known are {', '.join(known)}")


def _yaml(text: str, *, offset: int) -> Any:
    """Return the data of a YAML text that stands `offset` lines below the top of its file."""
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        mark = exc.problem_mark if isinstance(exc, yaml.MarkedYAMLError) else None
        line = f" in line {mark.line + 1 + offset}" if mark else ""
    # Not "from exc": that error quotes the file.
    raise InvalidValueError(
        f"it is not valid YAML{line}; look for a missing quote, a tab or a wrong indentation"
    )


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidValueError(f"{what} should be lines of the form name: value")
    return value


def _list(entry: dict[str, Any], key: str) -> list[Any]:
    value = entry.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidValueError(f"{key} should be a list")
    return value


def _of(entry: dict[str, Any], key: str, allowed: Callable[[Any], bool], what: str) -> Any:
    value = entry.get(key)
    if value is not None and not allowed(value):
        raise InvalidValueError(f"{key} should be {what}, not {type(value).__name__}")
    return value


def _text(entry: dict[str, Any], key: str) -> str | None:
    value: str | None = _of(entry, key, lambda value: isinstance(value, str), "text")
    return value


def _required(entry: dict[str, Any], key: str) -> str:
    value = _text(entry, key)
    if not value:
        raise InvalidValueError(f"{key} is missing")
    return value


def _whole(entry: dict[str, Any], key: str) -> int | None:
    value: int | None = _of(
        entry,
        key,
        lambda value: isinstance(value, int) and not isinstance(value, bool),
        "a whole number",
    )
    return value


def _number(entry: dict[str, Any], key: str) -> float | None:
    value: float | None = _of(
        entry,
        key,
        lambda value: isinstance(value, int | float) and not isinstance(value, bool),
        "a number",
    )
    return value

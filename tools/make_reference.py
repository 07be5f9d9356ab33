"""Write docs/reference from the docstrings, the settings and the command line.

    python tools/make_reference.py

The code is read and not run (griffe), but for the settings and the commands, which are asked what
they are. The result is committed, and a test fails where it is not current.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import griffe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "docs" / "reference"

WIDTH: Final = 88
"""Longest signature on one line: what fits a code host's page without a scroll bar."""

GENERATED: Final = "<!-- Made from the docstrings by `make docs`; changes here are overwritten. -->"


@dataclass(frozen=True)
class Page:
    """One page: a title, what it is about, and the objects on it, by module."""

    name: str
    title: str
    about: str
    objects: tuple[str, ...]


PAGES: Final = (
    Page(
        "database",
        "The database",
        "Opening a database, searching it by meaning, and running SQL of your own.",
        (
            "database.MetaDatabase",
            "database.get_meta_database",
            "backends.session.MetaSession",
            "backends.base.DatabaseStatus",
            "backends.base.VectorStatus",
        ),
    ),
    Page(
        "repositories",
        "Repositories",
        "Typed access to the six kinds of records. The first three classes are what the others "
        "have in common.",
        (
            "repositories.base.Reader",
            "repositories.base.Repository",
            "repositories.searchable.SearchableRepository",
            "repositories.generations.GenerationRepository",
            "repositories.templates.TemplateRepository",
            "repositories.feedback.FeedbackRepository",
            "repositories.costs.CostRepository",
            "repositories.memory.MemoryRepository",
            "repositories.best_practices.BestPracticeRepository",
        ),
    ),
    Page(
        "records",
        "Records",
        "What repositories take and return. To make one, give the fields that are required.",
        (
            "records.GenerationResult",
            "records.Template",
            "records.TemplateMatch",
            "records.Feedback",
            "records.CostRecord",
            "records.CostBreakdown",
            "records.CostReport",
            "records.MemoryItem",
            "records.BestPractice",
            "records.BestPracticeMatch",
            "records.Promotion",
            "records.EmbeddingReport",
        ),
    ),
    Page(
        "transfer",
        "Moving data",
        "",
        (
            "transfer.exporting.export_sql",
            "transfer.exporting.export_jsonl",
            "transfer.exporting.ExportReport",
            "transfer.importing.import_file",
            "transfer.importing.ImportReport",
            "transfer.copying.copy_database",
            "transfer.copying.CopyReport",
            "transfer.copying.CopiedTable",
            "transfer.comparing.compare_databases",
            "transfer.comparing.Comparison",
            "transfer.comparing.Side",
            "transfer.comparing.Named",
            "transfer.backup.back_up",
            "transfer.backup.restore",
            "backends.backups.BackupReport",
            "backends.backups.RestoreReport",
        ),
    ),
    Page(
        "retention",
        "Letting go",
        "",
        (
            "retention.prune",
            "retention.PruneReport",
            "retention.erase_session",
            "retention.erase_generation",
            "retention.EraseReport",
        ),
    ),
    Page(
        "health",
        "Health",
        "Whether a database is well; see [Check the database](../how-to/check-the-database.md).",
        (
            "health.examine",
            "health.HealthReport",
            "backends.health.Finding",
        ),
    ),
    Page(
        "filters",
        "Filters",
        "What the argument `filters` of lists and searches takes.",
        ("filters.parse_filters", "filters.MAX_CHOICES", "filters.MAX_FILTER_TEXT_BYTES"),
    ),
    Page(
        "configuration",
        "Configuration",
        "How settings are gathered. What they are is on the page [settings](settings.md).",
        ("config.load_config", "config.Config", "config.DatabaseSettings"),
    ),
    Page(
        "embeddings",
        "Embeddings",
        "What turns texts into vectors. Anything with the methods of `EmbeddingProvider` can be "
        "given to `MetaDatabase` as `embeddings`.",
        (
            "embeddings.registry.get_embedding_provider",
            "embeddings.registry.settings_for_model",
            "embeddings.base.EmbeddingProvider",
            "embeddings.local.LocalEmbeddings",
            "embeddings.minilm.MiniLMEmbeddings",
            "embeddings.openai.OpenAIEmbeddings",
            "embeddings.ollama.OllamaEmbeddings",
        ),
    ),
    Page(
        "errors",
        "Errors",
        "",
        (
            "exceptions.ParacleMetaError",
            "exceptions.ConfigurationError",
            "exceptions.DatabaseError",
            "exceptions.DatabaseConnectionError",
            "exceptions.DatabaseBusyError",
            "exceptions.StorageError",
            "exceptions.MigrationError",
            "exceptions.QueryError",
            "exceptions.IntegrityError",
            "exceptions.DuplicateError",
            "exceptions.NotFoundError",
            "exceptions.InUseError",
            "exceptions.InvalidValueError",
            "exceptions.EmbeddingError",
            "exceptions.EmbeddingProviderError",
            "exceptions.EmbeddingBatchError",
            "exceptions.EmbeddingModelMismatchError",
            "exceptions.TransferError",
            "exceptions.UnportableError",
            "exceptions.RejectedLinesError",
        ),
    ),
    Page(
        "testing",
        "Testing",
        "",
        ("testing.embeddings.FakeEmbeddings", "testing.base.Contract"),
    ),
    Page(
        "backend",
        "The contract of a database",
        "",
        (
            "backends.base.Backend",
            "backends.base.CostGroup",
            "backends.base.RatedGeneration",
            "backends.collections.Collections",
            "backends.collections.ChangeOfModel",
            "backends.collections.VectorSpace",
            "backends.collections.QueryVector",
            "backends.collections.NewVector",
            "backends.bulk.Bulk",
            "backends.bulk.Snapshot",
            "backends.bulk.Loading",
            "backends.bulk.Period",
            "backends.bulk.Inserted",
            "backends.bulk.Unportable",
            "backends.backups.Backups",
            "backends.retention.Retention",
        ),
    ),
)

INTERNAL: Final = frozenset({"model_post_init", "from_settings"})
"""Methods that libraries and other modules of the package call, not its users."""

MODULE_DOCSTRINGS: Final = {
    "errors": "exceptions",
    "testing": "testing",
    "transfer": "transfer",
    "retention": "retention",
    "backend": "backends.base",
}
"""Pages that begin with what their module says of itself."""


class Reference:
    """Makes the pages of the package that lies in a folder."""

    def __init__(self, source: Path) -> None:
        self._package = griffe.load(
            "paracle_meta", search_paths=[source], docstring_parser="google"
        )
        self._links = dict(self._targets())

    def pages(self) -> dict[str, str]:
        """Return the text of every page by its file name."""
        pages = {f"{page.name}.md": self._page(page) for page in PAGES}
        pages["settings.md"] = settings_page()
        pages["command-line.md"] = command_line_page()
        pages["README.md"] = contents_page()
        return pages

    def _targets(self) -> Iterator[tuple[str, str]]:
        for page in PAGES:
            for path in page.objects:
                item = self._package[path]
                yield item.name, f"{page.name}.md#{_anchor(item.name)}"
                for method in _methods(item):
                    title = f"{item.name}.{method.name}"
                    yield title, f"{page.name}.md#{_anchor(title)}"

    def _page(self, page: Page) -> str:
        parts = [GENERATED, f"# {page.title}"]
        if page.about:
            parts.append(self._text(page.about, page.name))
        if module := MODULE_DOCSTRINGS.get(page.name):
            docstring = self._package[module].docstring
            parts.append(self._text(docstring.value, page.name))
        for path in page.objects:
            parts += self._object(self._package[path], page.name)
        return "\n\n".join(parts) + "\n"

    def _object(self, item: Any, page: str) -> Iterator[str]:
        yield f"## {item.name}"
        if item.is_attribute:
            yield _code(f"{item.name} = {item.value}")
        elif item.is_function:
            yield _code(_signature(item, item.name))
        elif "__init__" in item.members and not _is_record(item):
            yield _code(_signature(item["__init__"], item.name))
        if item.is_class and (bases := _bases(item)):
            yield self._text(f"Extends {bases}.", page)
        yield from self._docstring(item, page)
        if item.is_class and "__init__" in item.members and not _is_record(item):
            # What the class does has been said; the arguments are left.
            yield from self._docstring(item["__init__"], page, without_text=True)
        for method in _methods(item):
            title = f"{item.name}.{method.name}"
            yield f"### {title}"
            if method.is_attribute:
                yield _code(f"{method.name}: {_type(method.annotation)}")
            else:
                yield _code(_signature(method, method.name))
            yield from self._docstring(method, page)

    def _docstring(self, item: Any, page: str, *, without_text: bool = False) -> Iterator[str]:
        if item.docstring is None:
            return
        for section in item.docstring.parsed:
            match section.kind.value:
                case "text":
                    if not without_text:
                        yield self._text(section.value, page)
                case "parameters":
                    yield self._list("Arguments", section.value, page)
                case "attributes":
                    title = "Fields" if _is_record(item) else "Attributes"
                    yield self._list(title, section.value, page, owner=item)
                case "returns":
                    value = " ".join(entry.description for entry in section.value)
                    yield f"**Returns**: {self._text(_joined(value), page)}"
                case "raises":
                    yield self._list("Raises", section.value, page)
                case "admonition":
                    text = self._text(section.value.description, page)
                    yield f"**{section.title}**:\n\n{text}"
                case kind:
                    raise ValueError(f"{item.path}: a docstring section {kind!r} is not known here")

    def _list(self, title: str, entries: Iterable[Any], page: str, owner: Any | None = None) -> str:
        lines = [f"**{title}**:", ""]
        for entry in entries:
            if title == "Raises":
                head = f"`{_type(entry.annotation)}`"
            else:
                note = _required(owner, entry.name) if owner is not None else ""
                kind = f" (`{_type(entry.annotation)}`{note})" if entry.annotation else ""
                head = f"`{entry.name}`{kind}"
            lines.append(self._text(f"- {head}: {_joined(entry.description)}", page))
        return "\n".join(lines)

    def _text(self, text: str, page: str) -> str:
        """Return text with double backticks as single ones, and names linked to where they are."""

        def linked(match: re.Match[str]) -> str:
            target = self._links.get(match[1])
            if target is None:
                return f"`{match[1]}`"
            return f"[`{match[1]}`]({target.removeprefix(f'{page}.md')})"

        # What is indented is code.
        lines = text.replace("``", "`") if "```" not in text else text
        return "\n".join(
            line if line.startswith("    ") else re.sub(r"`([\w.]+)`", linked, line)
            for line in lines.splitlines()
        )


def _joined(text: str) -> str:
    return " ".join(text.split())


def _anchor(title: str) -> str:
    """Return the anchor that a code host gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _is_public(name: str) -> bool:
    return not name.startswith("_") and name not in INTERNAL


def _is_record(item: Any) -> bool:
    return "dataclass" in item.labels


def _methods(item: Any) -> list[Any]:
    """Return what is documented below a class: its own public methods and properties."""
    if not item.is_class:
        return []
    return [
        member
        for name, member in item.members.items()
        if _is_public(name)
        and member.docstring is not None
        and (member.is_function or "property" in member.labels)
    ]


def _bases(item: Any) -> str:
    names = [re.match(r"\w+", str(base)) for base in item.bases]
    known = {"Reader", "Repository", "SearchableRepository", "Template", "BestPractice"}
    known |= {"CostBreakdown"}
    return " and ".join(
        f"`{name[0]}`" for name in names if name and (name[0] in known or name[0].endswith("Error"))
    )


def _type(annotation: Any) -> str:
    # griffe writes an unpacked type as a tuple of one.
    return str(annotation).replace("builtins.", "").replace(",]", "]")


def _required(owner: Any, name: str) -> str:
    """Return how a field is noted that must be given to make a record."""
    if owner.module.name != "records" or name not in owner.members:
        return ""
    value = owner.members[name].value
    has_default = value is not None and ("field(" not in str(value) or "default" in str(value))
    return "" if has_default else ", required"


def _signature(function: Any, name: str) -> str:
    """Return a signature without `self`, one parameter a line where it is long."""
    parameters = []
    keyword_only = False
    for parameter in function.parameters:
        if parameter.name in ("self", "cls"):
            continue
        kind = parameter.kind.value
        if kind == "keyword-only" and not keyword_only:
            parameters.append("*")
        keyword_only = keyword_only or kind in ("keyword-only", "variadic positional")
        stars = {"variadic positional": "*", "variadic keyword": "**"}.get(kind, "")
        text = f"{stars}{parameter.name}"
        if parameter.annotation is not None:
            text += f": {_type(parameter.annotation)}"
        if parameter.default is not None and not stars:
            text += f" = {parameter.default}" if parameter.annotation else f"={parameter.default}"
        parameters.append(text)
    start = "async " if "async" in function.labels else ""
    end = "" if name[0].isupper() or not function.returns else f" -> {_type(function.returns)}"
    line = f"{start}{name}({', '.join(parameters)}){end}"
    if len(line) <= WIDTH:
        return line
    inner = "".join(f"    {parameter},\n" for parameter in parameters)
    return f"{start}{name}(\n{inner}){end}"


def _code(text: str) -> str:
    # "py" and not "python": blocks of that name are examples, which the tests run.
    return f"```py\n{text}\n```"


def settings_page() -> str:
    """Return the page of all settings."""
    from paracle_meta.config import DatabaseSettings

    parts = [
        GENERATED,
        "# Settings",
        "Each can stand in `.parac/config/meta_agent.yaml` below `meta_agent:` and `database:`, or "
        "be given as the environment variable `PARACLE_META_DATABASE__` followed by its name in "
        "capitals (`PARACLE_META_DATABASE__POOL_SIZE=5`), in the environment or in a file `.env`. "
        "`PARACLE_META_POSTGRES_URL` and `PARACLE_META_SQLITE_DIR` are short for two of them. See "
        "[configure](../how-to/configure.md).",
    ]
    for name, field in DatabaseSettings.model_fields.items():
        parts += [f"## {name}", f"Default: `{json.dumps(field.default)}`", str(field.description)]
    return "\n\n".join(parts) + "\n"


def command_line_page() -> str:
    """Return the page of all commands, as typer's own `utils docs` writes it."""
    import typer
    from typer.cli import get_docs_for_click

    from paracle_meta.cli.app import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="paracle")
    # A usage line is no command to run, and \b is how click is told to leave line breaks alone.
    text = text.replace("```console\n$ ", "```text\n").replace("\b\n", "")
    # Examples are indented as help is; Markdown wants more to take them as code.
    text = re.sub(r"^  (?=paracle )", "    ", text, flags=re.MULTILINE)
    lines = (line.rstrip() for line in text.splitlines())
    return f"{GENERATED}\n\n" + re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def contents_page() -> str:
    """Return the page that lists the others."""
    entries = [
        *((f"{page.name}.md", page.title) for page in PAGES),
        ("settings.md", "Settings"),
        ("command-line.md", "The command line"),
    ]
    lines = [f"- [{title}]({file})" for file, title in entries]
    return "\n".join([GENERATED, "", "# Reference", "", *lines]) + "\n"


def write(pages: Mapping[str, str], folder: Path) -> None:
    """Write the pages, and remove those that there are no longer."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in {path.name for path in folder.glob("*.md")} - set(pages):
        (folder / stale).unlink()
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Reference(ROOT / "src").pages(), FOLDER)

"""What users build on: every change of it is made on purpose, with a line in the change log.

`public_api.txt` holds the signatures. After a change that is meant:
``PYTHONPATH=src python -m tests.test_public_api > tests/public_api.txt``.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import paracle_meta
from paracle_meta import embeddings, exceptions, health, retention, schema, transfer
from paracle_meta.config import Config, DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNATURES = Path(__file__).with_name("public_api.txt")

PUBLIC = [
    "BestPractice",
    "BestPracticeMatch",
    "BestPracticeRepository",
    "Config",
    "ConfigurationError",
    "CostBreakdown",
    "CostRecord",
    "CostReport",
    "CostRepository",
    "DatabaseBusyError",
    "DatabaseConnectionError",
    "DatabaseError",
    "DatabaseSettings",
    "DuplicateError",
    "EmbeddingBatchError",
    "EmbeddingError",
    "EmbeddingModelMismatchError",
    "EmbeddingProviderError",
    "EmbeddingReport",
    "Feedback",
    "FeedbackRepository",
    "GenerationRepository",
    "GenerationResult",
    "InUseError",
    "IntegrityError",
    "InvalidValueError",
    "MemoryItem",
    "MemoryRepository",
    "MetaDatabase",
    "MigrationError",
    "NotFoundError",
    "ParacleMetaError",
    "Promotion",
    "QueryError",
    "RejectedLinesError",
    "StorageError",
    "Template",
    "TemplateMatch",
    "TemplateRepository",
    "TransferError",
    "UnportableError",
    "__version__",
    "get_meta_database",
    "load_config",
]

PUBLIC_EMBEDDINGS = [
    "EmbeddingProvider",
    "LocalEmbeddings",
    "MiniLMEmbeddings",
    "OllamaEmbeddings",
    "OpenAIEmbeddings",
    "get_embedding_provider",
    "settings_for_model",
]

PUBLIC_HEALTH = ["Finding", "HealthReport", "examine"]
PUBLIC_RETENTION = ["EraseReport", "PruneReport", "erase_generation", "erase_session", "prune"]
PUBLIC_TRANSFER = [
    "BackupReport",
    "Comparison",
    "CopiedTable",
    "CopyReport",
    "ExportReport",
    "ImportReport",
    "Named",
    "RestoreReport",
    "Side",
    "back_up",
    "compare_databases",
    "copy_database",
    "export_jsonl",
    "export_sql",
    "import_file",
    "restore",
]

ERRORS = """
ParacleMetaError
    ConfigurationError
    DatabaseError
        DatabaseBusyError
        DatabaseConnectionError
        MigrationError
        QueryError
        StorageError
    EmbeddingError
        EmbeddingBatchError
        EmbeddingModelMismatchError
        EmbeddingProviderError
    IntegrityError
        DuplicateError
        InUseError
        InvalidValueError
        NotFoundError
    TransferError
        RejectedLinesError
        UnportableError
"""

# The guide's columns; those that are kept besides come after, and none of these may go.
GUIDE = {
    "generations": "id artifact_type name description content quality_score provider model "
    "tokens_used cost created_at metadata",
    "templates": "id artifact_type name pattern content quality_score usage_count source "
    "created_at embedding",
    "feedback": "id generation_id rating comment created_at",
    "costs": "id provider model input_tokens output_tokens cost period_type period_start "
    "created_at",
    "memory": "id session_id key value scope created_at expires_at",
    "best_practices": "id category title content tags quality_score usage_count created_at "
    "embedding",
}


def test_the_public_names_are_these() -> None:
    assert paracle_meta.__all__ == PUBLIC
    assert embeddings.__all__ == PUBLIC_EMBEDDINGS
    assert health.__all__ == PUBLIC_HEALTH
    assert retention.__all__ == PUBLIC_RETENTION
    assert transfer.__all__ == PUBLIC_TRANSFER
    assert dir(paracle_meta) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_can_be_imported(name: str) -> None:
    value = getattr(paracle_meta, name)
    if name == "__version__":
        assert isinstance(value, str)
        return
    assert value.__name__ == name
    home = importlib.import_module(value.__module__)
    assert getattr(home, name) is value
    assert value.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Generation'"):
        paracle_meta.Generation  # noqa: B018


def error_tree(error: type[Exception], depth: int = 0) -> Iterator[str]:
    yield "    " * depth + error.__name__
    for child in sorted(error.__subclasses__(), key=lambda child: child.__name__):
        if child.__module__ == exceptions.__name__:
            yield from error_tree(child, depth + 1)


def test_the_error_tree_is_this() -> None:
    assert [*error_tree(exceptions.ParacleMetaError)] == ERRORS.strip().split("\n")
    assert exceptions.__doc__ is not None
    for name in ERRORS.split():
        assert name in exceptions.__doc__
        assert name in PUBLIC


@pytest.mark.parametrize("table", schema.TABLES, ids=lambda table: table.name)
def test_a_record_has_the_columns_of_its_table(table: schema.Table[Any]) -> None:
    columns = [column.name for column in table.columns]
    assert [field.name for field in dataclasses.fields(table.record)] == columns
    guide = GUIDE[table.name].split()
    assert columns[: len(guide)] == guide
    assert table.record.__name__ in PUBLIC
    if table.match is not None:
        fields = [field.name for field in dataclasses.fields(table.match)]
        assert fields == [*columns, "similarity", "score"]
        assert issubclass(table.match, table.record)


def signatures() -> Iterator[str]:
    """Yield the signature of everything public that is called, and the fields of what is held."""
    places = [
        (paracle_meta, PUBLIC),
        (embeddings, PUBLIC_EMBEDDINGS),
        (health, PUBLIC_HEALTH),
        (retention, PUBLIC_RETENTION),
        (transfer, PUBLIC_TRANSFER),
    ]
    for name, value in ((name, getattr(place, name)) for place, names in places for name in names):
        if isinstance(value, str):
            continue
        if inspect.isfunction(value):
            yield f"{name}{signature(value)}"
        elif value in (Config, DatabaseSettings):
            yield f"{name}: settings"
            yield from (
                f"    {field}: {value.__annotations__[field]}{settings_default(info)}"
                for field, info in value.model_fields.items()
            )
            yield from members(value)
        elif dataclasses.is_dataclass(value):
            yield f"{name}: record"
            yield from (f"    {f.name}: {f.type}{default(f)}" for f in dataclasses.fields(value))
            yield from members(value)
        elif issubclass(value, exceptions.ParacleMetaError):
            continue
        else:
            yield f"{name}{signature(value.__init__, bound=True)}"
            yield from members(value)


def settings_default(info: Any) -> str:
    return " = ..." if info.default_factory is not None else f" = {info.default!r}"


def default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f" = {field.default!r}"
    return " = ..." if field.default_factory is not dataclasses.MISSING else ""


class Plain:
    """An annotation that is shown as it is written, without the quotes of a text."""

    def __init__(self, annotation: str) -> None:
        self.annotation = annotation

    def __repr__(self) -> str:
        return self.annotation


def signature(value: Any, *, bound: bool = False) -> str:
    found = inspect.signature(value)
    parameters = [
        parameter.replace(annotation=plain(parameter.annotation))
        for parameter in found.parameters.values()
    ]
    return str(
        found.replace(
            parameters=parameters[1:] if bound else parameters,
            return_annotation=plain(found.return_annotation),
        )
    )


def plain(annotation: Any) -> Any:
    return Plain(annotation) if isinstance(annotation, str) else annotation


def members(value: Any) -> Iterator[str]:
    """Yield the public methods and properties that the class and ours above it define."""
    found: dict[str, Any] = {}
    for parent in reversed(value.__mro__):
        if parent.__module__.startswith("paracle_meta"):
            found |= {name: item for name, item in vars(parent).items() if name[0] != "_"}
    found.pop("model_post_init", None)  # pydantic's, not ours to call
    for name, item in sorted(found.items()):
        if isinstance(item, property):
            getter: Any = item.fget
            yield f"    @property {name} -> {inspect.signature(getter).return_annotation}"
        elif isinstance(item, staticmethod | classmethod):
            function: Any = item.__func__
            yield f"    @{type(item).__name__} {name}{signature(function)}"
        elif inspect.isfunction(item):
            kind = "async " if inspect.iscoroutinefunction(item) else ""
            yield f"    {kind}{name}{signature(item)}"


def test_the_signatures_are_those_on_file() -> None:
    assert [*signatures()] == SIGNATURES.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    print("\n".join(signatures()))  # noqa: T201

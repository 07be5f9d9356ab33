"""The plan of the house, held to: who may import whom, who knows a dialect, what loads what."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import paracle_meta

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(paracle_meta.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = {path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in FILES}

# From the top down. Each may import what stands in a lower line, never its own line's neighbours.
LAYERS = [
    {"__init__", "__main__"},
    {"cli"},
    {"demo", "testing"},
    {"health"},
    {"transfer", "loading", "retention"},
    {"repositories", "specs"},
    {"database"},
    {"reembedding"},
    {"connections", "embedder"},
    {"backends", "embeddings"},
    {"migrations"},
    {"tables"},
    {"config", "config_sources"},
    {"config_file"},
    {"filters", "kinds"},
    {"validation"},
    {"values"},
    {"schema"},
    {"records"},
    {"ids", "lazy", "turns", "urls"},
    {"exceptions"},
]
LEVEL = {unit: -level for level, units in enumerate(LAYERS) for unit in units}

ALLOWED_BESIDES = {
    ("config", "config_sources"): "load_config loads the readers of its sources when it runs",
    ("config_sources", "config"): "they fill the settings that config describes",
}

LAZY = {
    "migrations.runner": "loaded by migrate()",
    "tables": "loaded by session() users and migrate()",
    "backends.session": "loaded by session() and migrate()",
    "backends.sqlite.session": "loaded by session() and migrate()",
    "backends.postgresql.session": "loaded by session() and migrate()",
}
"""Modules that import SQLAlchemy or Alembic: others import them in functions only."""

AT_IMPORT = {
    "aiosqlite": {"backends.sqlite.session"},
    "alembic": {"migrations.runner"},
    "asyncpg": {
        "backends.postgresql.backend",
        "backends.postgresql.bulk_vectors",
        "backends.postgresql.errors",
        "backends.postgresql.hosts",
        "backends.postgresql.inserting",
        "backends.postgresql.loading",
        "backends.postgresql.pool",
        "backends.postgresql.schema",
        "backends.postgresql.session",
    },
    "numkong": set(),
    "numpy": {
        "backends.sqlite.vector_rows",
        "backends.sqlite.vectors",
        "backends.vectors.columns",
        "backends.vectors.files",
        "backends.vectors.held",
        "backends.vectors.index",
        "backends.vectors.rounded",
        "backends.vectors.segment",
        "backends.vectors.selection",
        "backends.vectors.together",
    },
    "ollama": set(),
    "onnxruntime": set(),
    "openai": set(),
    "pgvector": {"tables"},
    "pysqlite3": set(),
    "rich": set(),
    "sqlalchemy": {*LAZY, "migrations.versions.0001_six_tables"},
    "usearch": set(),
    "wordllama": set(),
    "yaml": {"config_file"},
}
"""Heavy packages, and the modules that may import them as soon as they are imported themselves."""

DIALECT = re.compile(r"sqlite|postgres|pgvector|pragma|asyncpg|hnsw|ivfflat|dialect", re.IGNORECASE)
KNOWS_DIALECT = {
    "backends": "this is the place",
    "tables": "column types pick their storage",
    "migrations": "a revision says what each database gets",
    "config": "settings of each database",
    "config_sources": "the variables that have names of their own",
    "urls": "which database a URL means",
}
NAMES_DIALECT = {
    "cli.app": "help on --url",
    "cli.running": "which setting --url stands for",
    "cli.db": "`db path` says where the database is; an example in the help",
    "cli.copy": "help on --from and --to; examples in the help",
    "cli.demo": "an example in the help",
    "values": "a message says why NUL is refused; the widest vector of one",
}
"""Modules with such words in a message, a help text or the name of a setting, and nowhere else."""

MOST_LINES = 400
LONGER = {
    "config": "every setting in one place, each with its meaning: read as a list, not as code",
}

LOGGERS = {"paracle_meta"}
OTHERS_LOGGERS = {
    "alembic": "migrations.runner quiets it",
    "": "embeddings.local guards the root",
    "sqlalchemy.engine.Engine.paracle_meta": "our own engines: backends.session keeps rows out",
}


def unit(name: str) -> str:
    return name.split(".")[0]


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def nodes(tree: ast.AST, *, lazy: bool = True) -> Iterator[ast.AST]:
    """Yield each node but those for type checkers; without `lazy` those in functions neither."""
    for child in ast.iter_child_nodes(tree):
        if is_for_types(child):
            continue
        if not lazy and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield child
        yield from nodes(child, lazy=lazy)


def imported(path: Path, *, lazy: bool = True) -> set[str]:
    """Return the modules that a file imports: ours without the package's name, others whole."""
    ours = set(NAMES.values())
    found = set()
    for node in nodes(parsed(path), lazy=lazy):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written out from the package's name on"
            module = node.module or ""
            for alias in node.names:
                whole = f"{module}.{alias.name}"
                inner = whole.removeprefix("paracle_meta.")
                is_module = inner in ours or f"{inner}.__init__" in ours
                found.add(whole if whole != inner and is_module else module)
    return found


def own(modules: set[str]) -> set[str]:
    return {
        name.removeprefix("paracle_meta.") for name in modules if name.startswith("paracle_meta.")
    }


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_imports_run_one_way(path: Path) -> None:
    name = NAMES[path]
    here = unit(name)
    assert here in LEVEL, f"{here} has no place among the layers"
    for module in own(imported(path)):
        there = unit(module)
        allowed = here == there or LEVEL[there] < LEVEL[here]
        assert allowed or (here, there) in ALLOWED_BESIDES, f"{name} must not import {module}"


def test_what_is_listed_with_a_reason_is_still_there() -> None:
    for listed in (*KNOWS_DIALECT, *NAMES_DIALECT, *LONGER, *LAZY):
        assert any(name == listed or name.startswith(f"{listed}.") for name in NAMES.values()), (
            listed
        )


def test_only_session_and_migrate_load_what_is_heavy() -> None:
    for path, name in NAMES.items():
        if name in LAZY or name.startswith("migrations.versions."):
            continue
        eager = own(imported(path, lazy=False))
        assert not eager & LAZY.keys(), f"{name} imports {eager & LAZY.keys()} when it is imported"


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    found = defaultdict(set)
    for path, name in NAMES.items():
        for module in imported(path, lazy=False):
            package = module.split(".")[0]
            if package in AT_IMPORT:
                found[package].add(name)
    assert {package: found[package] - allowed for package, allowed in AT_IMPORT.items()} == {
        package: set() for package in AT_IMPORT
    }


def words_of_code(path: Path) -> Iterator[tuple[int, bool, str]]:
    """Yield each name and text in code, with its line and whether it is a text; no docstrings."""
    tree = parsed(path)
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in nodes(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Constant(value=str(text)) if id(node) not in docstrings:
                yield line, True, text
            case ast.Name(id=text) | ast.Attribute(attr=text) | ast.arg(arg=text):
                yield line, False, text
            case ast.FunctionDef(name=text) | ast.AsyncFunctionDef(name=text):
                yield line, False, text
            case ast.ClassDef(name=text) | ast.alias(name=text):
                yield line, False, text
            case _:
                continue


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_dialects_are_known_in_few_places(path: Path) -> None:
    name = NAMES[path]
    if unit(name) in KNOWS_DIALECT:
        return
    settings = {"postgres_url", "sqlite_dir", "sqlite_folder"}
    for line, is_text, word in words_of_code(path):
        if DIALECT.search(word) is None:
            continue
        assert name in NAMES_DIALECT, f"{name}:{line} speaks of a dialect: {word[:60]}"
        assert is_text or word in settings, f"{name}:{line} knows a dialect: {word[:60]}"


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_no_file_is_long_without_a_reason(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    name = NAMES[path]
    if name in LONGER:
        assert lines > MOST_LINES, f"{name} is short enough now: take it off the list"
    else:
        assert lines <= MOST_LINES, f"{name} has {lines} lines: split it, or say why not"


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_nothing_is_probed_for(path: Path) -> None:
    for node in nodes(parsed(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "hasattr", f"{NAMES[path]}:{node.lineno} asks with hasattr"


def test_there_is_one_logger() -> None:
    loggers = set()
    for path in FILES:
        for node in nodes(parsed(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("getLogger"):
                arguments = [ast.literal_eval(argument) for argument in node.args] or [""]
                loggers.add(arguments[0])
    assert loggers - OTHERS_LOGGERS.keys() == LOGGERS


def loaded_by(code: str) -> set[str]:
    """Return the modules that a new interpreter has loaded after some code, and not before."""
    script = f"import sys; before = set(sys.modules)\n{code}\nimport json\n"
    script += "print(json.dumps(sorted(set(sys.modules) - before)))"
    answer = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(PACKAGE.parent), "PATH": ""},
    )
    return set(json.loads(answer.stdout))


def test_importing_the_package_loads_next_to_nothing() -> None:
    loaded = loaded_by("import paracle_meta")
    ours = {name for name in loaded if name.startswith("paracle_meta")}
    assert ours == {"paracle_meta", "paracle_meta.lazy"}
    # Itself, and what is in the standard library for importing by name.
    assert not {name.split(".")[0] for name in loaded} & ({*AT_IMPORT, "pydantic", "asyncio"})
    assert len(loaded) < 40


USE = """
import asyncio, tempfile
from paracle_meta import CostRepository, DatabaseSettings, MemoryRepository, MetaDatabase
async def main(folder):
    settings = DatabaseSettings(sqlite_dir=folder)
    async with MetaDatabase(settings) as db:
        await MemoryRepository(db).set("key", 1)
        await CostRepository(db).record("p", "m")
        await CostRepository(db).get_report()
"""


def test_repositories_load_neither_the_toolkit_nor_a_model(tmp_path: Path) -> None:
    folder = str(tmp_path / "files")
    heavy = {"sqlalchemy", "alembic", "numpy", "openai", "ollama", "wordllama", "asyncpg", "yaml"}
    once = loaded_by(f"{USE}\nasyncio.run(main({folder!r}))")
    assert {"sqlalchemy", "alembic"} <= once  # The first use has migrated.
    again = loaded_by(f"{USE}\nasyncio.run(main({folder!r}))")
    assert {name.split(".")[0] for name in again} & heavy == set()

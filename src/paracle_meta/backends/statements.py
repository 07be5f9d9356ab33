"""SQL made from schema.py: written once, spelled for each database by its `Dialect`.

Identifiers come from schema.py only and every value is a parameter, so nothing that a caller
passes can become SQL. A statement is built once a table and its text is kept, which lets both
drivers find their prepared statement again.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from paracle_meta import schema
from paracle_meta.backends import reports
from paracle_meta.backends.builder import RecordBuilder
from paracle_meta.exceptions import StorageError
from paracle_meta.filters import Condition, Operator
from paracle_meta.schema import Column, Kind, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from paracle_meta.backends.dialect import Dialect

R = TypeVar("R")

Query = tuple[str, list[Any]]
"""A statement and its parameters."""

EMBEDDED = "embedding_model IS NOT NULL"
"""Whether a row's vector counts: one that lost its model is of a text that has changed since."""

_COMPARISONS = {
    Operator.GT: ">",
    Operator.GTE: ">=",
    Operator.LT: "<",
    Operator.LTE: "<=",
}


class TableStatements(Generic[R]):
    """The statements of one table in one dialect."""

    def __init__(self, table: Table[R], dialect: Dialect) -> None:
        self.table = table
        self._dialect = dialect
        self.columns = table.stored_columns
        # What a missing value becomes is made anew each time, as a list may be changed.
        self._decoders = [
            (index, decode or _same, list if column.kind is Kind.TAGS else _none)
            for index, column in enumerate(self.columns)
            if (decode := dialect.decoder(column)) is not None or column.kind is Kind.TAGS
        ]
        self._names = [column.name for column in self.columns]

    @cached_property
    def output(self) -> str:
        """The columns that a record is made of."""
        return ", ".join(self._names)

    def record(self, row: Sequence[Any], *, embedding: list[float] | None = None) -> R:
        """Return the record of a row whose first columns are `output`."""
        values = self._values(row)
        if self.table.has_vector:
            values.append(embedding)
        return self._record(values)

    def match(self, row: Sequence[Any], similarity: float | None, score: float) -> R:
        """Return the match of a row whose first columns are `output`.

        Args:
            row: As read.
            similarity: To the query's vector, if both have one.
            score: What it is ranked by.
        """
        values = self._values(row) if self._decoders else row[: len(self._names)]
        return self._match([*values, similarity, score])

    @cached_property
    def _record(self) -> RecordBuilder[R]:
        vector = ["embedding"] if self.table.has_vector else []
        return RecordBuilder(self.table.record, [*self._names, *vector])

    @cached_property
    def _match(self) -> RecordBuilder[R]:
        if self.table.match is None:
            raise TypeError(f"{self.table.name} is no collection")
        return RecordBuilder(self.table.match, [*self._names, "similarity", "score"])

    def _values(self, row: Sequence[Any]) -> list[Any]:
        values = list(row[: len(self._names)])
        try:
            for index, decode, missing in self._decoders:
                raw = values[index]
                values[index] = missing() if raw is None else decode(raw)
        except (ValueError, TypeError):
            # Not "from error": it quotes the value.
            raise StorageError(
                f"A row of {self.table.name} holds what no {self.table.noun} can, as after damage "
                "or by a foreign program; restore it from a backup, or correct it."
            ) from None
        return values

    def encode(self, values: Mapping[str, Any], columns: Sequence[Column]) -> list[Any]:
        """Return the values of these columns as parameters."""
        return self.row_encoder(columns)(values)

    def row_encoder(self, columns: Sequence[Column]) -> Callable[[Mapping[str, Any]], list[Any]]:
        """Return what makes parameters of a row's values of these columns."""
        names = [column.name for column in columns]
        encoders = [
            (index, encode, column.kind is Kind.JSON_TEXT)
            for index, column in enumerate(columns)
            if (encode := self._dialect.encoder(column)) is not None
        ]

        def encode_row(values: Mapping[str, Any]) -> list[Any]:
            parameters = list(map(values.__getitem__, names))
            for index, encode, has_null in encoders:
                value = parameters[index]
                if value is not None or has_null:
                    parameters[index] = encode(value)
            return parameters

        return encode_row

    def insert(self, columns: Sequence[Column]) -> str:
        """Insert one row unless its id is stored."""
        names = ", ".join(column.name for column in columns)
        places = ", ".join(self._dialect.value(column, n) for n, column in enumerate(columns, 1))
        return (
            f"INSERT INTO {self.table.name} ({names}) VALUES ({places}) ON CONFLICT (id) DO NOTHING"
        )

    @cached_property
    def get(self) -> str:
        """One row by id."""
        return (
            f"SELECT {self.output} FROM {self.table.name} WHERE id = {self._dialect.parameter(1)}"
        )

    @cached_property
    def get_with_vector(self) -> str:
        """One row by id, its vector last."""
        vector = f"CASE WHEN {EMBEDDED} THEN {self._dialect.vector_output} END"
        return (
            f"SELECT {self.output}, {vector} FROM {self.table.name}"
            f" WHERE id = {self._dialect.parameter(1)}"
        )

    def get_many(self, ids: Sequence[str]) -> Query:
        """Rows by id, in no order."""
        column = self.columns[0]
        return (
            f"SELECT {self.output} FROM {self.table.name} WHERE {self._dialect.one_of(column, 1)}",
            [self._dialect.encode_many(column, list(ids))],
        )

    def existing(self, ids: Sequence[str]) -> Query:
        """Those of the ids that are stored."""
        column = self.columns[0]
        return (
            f"SELECT id FROM {self.table.name} WHERE {self._dialect.one_of(column, 1)}",
            [self._dialect.encode_many(column, list(ids))],
        )

    @cached_property
    def position(self) -> str:
        """Where a row stands in the order of pages."""
        return f"SELECT created_at FROM {self.table.name} WHERE id = {self._dialect.parameter(1)}"

    def select(
        self, conditions: Sequence[Condition], limit: int, after: tuple[Any, str] | None
    ) -> Query:
        """A page of rows, newest first; `after` is the position of the row before it."""
        tests, parameters = self.tests(conditions)
        if after is not None:
            created_at, record_id = after
            first = self._dialect.parameter(len(parameters) + 1)
            second = self._dialect.parameter(len(parameters) + 2)
            tests.append(f"(created_at, id) < ({first}, {second})")
            parameters += [created_at, record_id]
        parameters.append(limit)
        return (
            f"SELECT {self.output} FROM {self.table.name}{_where(tests)}"
            f" ORDER BY created_at DESC, id DESC"
            f" LIMIT {self._dialect.parameter(len(parameters))}",
            parameters,
        )

    def count(self, conditions: Sequence[Condition]) -> Query:
        """How many rows."""
        tests, parameters = self.tests(conditions)
        return f"SELECT count(*) FROM {self.table.name}{_where(tests)}", parameters

    def update(
        self, record_id: str, changes: Mapping[str, Any], conditions: Sequence[Condition]
    ) -> Query:
        """Change one row and return it."""
        columns = [column for column in self.table.columns if column.name in changes]
        parameters = self.encode(changes, columns)
        assignments = ", ".join(
            f"{column.name} = {self._dialect.value(column, n)}"
            for n, column in enumerate(columns, 1)
        )
        parameters.append(record_id)
        tests, more = self.tests(conditions, start=len(parameters) + 1)
        tests.insert(0, f"id = {self._dialect.parameter(len(parameters))}")
        return (
            f"UPDATE {self.table.name} SET {assignments}{_where(tests)} RETURNING {self.output}",
            parameters + more,
        )

    def increment(self, column: str) -> str:
        """Add one to a counter of the row with this id, and return the row."""
        if self.table.column(column) is None:
            raise ValueError(f"{self.table.name} has no column {column}")
        return (
            f"UPDATE {self.table.name} SET {column} = {column} + 1,"
            f" updated_at = {self._dialect.parameter(1)}"
            f" WHERE id = {self._dialect.parameter(2)} RETURNING {self.output}"
        )

    @cached_property
    def delete(self) -> str:
        """Delete the row with this id, returning the id."""
        return f"DELETE FROM {self.table.name} WHERE id = {self._dialect.parameter(1)} RETURNING id"

    def delete_where(self, conditions: Sequence[Condition]) -> Query:
        """Delete rows."""
        tests, parameters = self.tests(conditions)
        return f"DELETE FROM {self.table.name}{_where(tests)}", parameters

    def ids(self, conditions: Sequence[Condition], start: int = 1) -> Query:
        """The ids of rows; the parameters are numbered from `start`."""
        tests, parameters = self.tests(conditions, start)
        return f"SELECT id FROM {self.table.name}{_where(tests)}", parameters

    def oldest_ids(self, conditions: Sequence[Condition], limit: int) -> Query:
        """The ids of some rows, the oldest first."""
        query, parameters = self.ids(conditions)
        parameters.append(limit)
        place = self._dialect.parameter(len(parameters))
        return f"{query} ORDER BY created_at, id LIMIT {place}", parameters

    def get_many_with_vector(self, ids: Sequence[str]) -> Query:
        """Rows by id, their vectors last, in no order."""
        column = self.columns[0]
        return (
            f"SELECT {self.output}, {self._dialect.vector_output} FROM {self.table.name}"
            f" WHERE {self._dialect.one_of(column, 1)}",
            [self._dialect.encode_many(column, list(ids))],
        )

    def vectors(self, ids: Sequence[str]) -> Query:
        """The ids and vectors of those of these rows that have one, in no order."""
        column = self.columns[0]
        return (
            f"SELECT id, {self._dialect.vector_output} FROM {self.table.name}"
            f" WHERE {self._dialect.one_of(column, 1)} AND {EMBEDDED}",
            [self._dialect.encode_many(column, list(ids))],
        )

    @cached_property
    def without_vector(self) -> str:
        """Rows without a vector by id: those after the first parameter, as many as the second."""
        after, limit = self._dialect.parameter(1), self._dialect.parameter(2)
        return (
            f"SELECT {self.output} FROM {self.table.name}"
            f" WHERE embedding_model IS NULL AND id > {after} ORDER BY id LIMIT {limit}"
        )

    def embedded_ids(self, conditions: Sequence[Condition]) -> Query:
        """The id of each row that has a vector."""
        tests, parameters = self.tests(conditions)
        tests.append(f"{EMBEDDED} AND embedding IS NOT NULL")
        return f"SELECT id FROM {self.table.name}{_where(tests)}", parameters

    @cached_property
    def models(self) -> str:
        """The least and the greatest model of the stored vectors: two look-ups in an index."""
        table = self.table.name
        # SQLite uses the index for one of them a query, and would read all rows for both.
        return (
            f"SELECT (SELECT min(embedding_model) FROM {table}),"
            f" (SELECT max(embedding_model) FROM {table})"
        )

    def tests(self, conditions: Sequence[Condition], start: int = 1) -> tuple[list[str], list[Any]]:
        """Return the SQL of each condition, and their parameters numbered from `start`."""
        parameters: list[Any] = []
        tests = [self._test(condition, parameters, start) for condition in conditions]
        return tests, parameters

    def _test(self, condition: Condition, parameters: list[Any], start: int) -> str:
        column, operator, value = condition.column, condition.operator, condition.value

        def parameter(encoded: Any) -> int:
            parameters.append(encoded)
            return start + len(parameters) - 1

        if operator is Operator.IN:
            present = [item for item in value if item is not None]
            position = parameter(self._dialect.encode_many(column, present))
            test = self._dialect.one_of(column, position)
            return f"({test} OR {column.name} IS NULL)" if len(present) < len(value) else test
        if operator is Operator.CONTAINS_ALL:
            position = parameter(self._dialect.encode_many(column, value))
            return self._dialect.contains_all(column, position)
        if value is None:
            return f"{column.name} IS {'NOT ' if operator is Operator.NE else ''}NULL"
        encode = self._dialect.encoder(column) or _same
        position = parameter(encode(value))
        place = self._dialect.value(column, position)
        match operator:
            case Operator.EQ:
                return f"{column.name} = {place}"
            case Operator.NE:
                return self._dialect.distinct(column, position)
            case Operator.NOT_PAST:
                return f"({column.name} IS NULL OR {column.name} > {place})"
            case _:
                return f"{column.name} {_COMPARISONS[operator]} {place}"


def _none() -> None:
    return None


def _same(value: Any) -> Any:
    return value


def _where(tests: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(tests)}" if tests else ""


class Statements:
    """The statements of all tables in one dialect, and those of single tables."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._tables = {table.name: TableStatements(table, dialect) for table in schema.TABLES}

    def of(self, table: Table[R]) -> TableStatements[R]:
        """Return the statements of a table."""
        return self._tables[table.name]

    @cached_property
    def put_memory(self) -> str:
        """Insert or replace a memory item; the last parameter is the present.

        An item that lives on keeps its id and the time it was first set.
        """
        statements = self.of(schema.MEMORY)
        names = [column.name for column in statements.columns]
        places = [self._dialect.value(c, n) for n, c in enumerate(statements.columns, 1)]
        now = self._dialect.parameter(len(names) + 1)
        expired = f"memory.expires_at IS NOT NULL AND memory.expires_at <= {now}"
        return (
            f"INSERT INTO memory ({', '.join(names)}) VALUES ({', '.join(places)})"
            f" ON CONFLICT (scope, {schema.or_empty('session_id')}, key) DO UPDATE SET"
            f" id = CASE WHEN {expired} THEN excluded.id ELSE memory.id END,"
            f" created_at = CASE WHEN {expired} THEN excluded.created_at"
            " ELSE memory.created_at END,"
            " value = excluded.value, expires_at = excluded.expires_at,"
            " updated_at = excluded.updated_at"
            f" RETURNING {statements.output}"
        )

    @cached_property
    def get_memory(self) -> str:
        """The living item under a scope, session (empty for none) and key, at a time."""
        output = self.of(schema.MEMORY).output
        return f"SELECT {output} FROM memory WHERE {self._memory_key}"

    @cached_property
    def delete_memory(self) -> str:
        """Delete the item that `get_memory` would return, returning its id."""
        return f"DELETE FROM memory WHERE {self._memory_key} RETURNING id"

    @cached_property
    def _memory_key(self) -> str:
        scope, session, key, now = (self._dialect.parameter(n) for n in (1, 2, 3, 4))
        return (
            f"scope = {scope} AND {schema.or_empty('session_id')} = {session} AND key = {key}"
            f" AND (expires_at IS NULL OR expires_at > {now})"
        )

    def cost_groups(self, conditions: Sequence[Condition]) -> Query:
        """Costs by provider, model and day."""
        tests, parameters = self.of(schema.COSTS).tests(conditions)
        return reports.cost_groups(self._dialect, tests), parameters

    @cached_property
    def qualified_generations(self) -> str:
        """Generations with enough good ratings or a high score; three parameters in this order."""
        return reports.qualified_generations(self._dialect)

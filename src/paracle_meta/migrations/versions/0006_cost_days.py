"""Sums of costs by day, so that a report reads some hundred rows and not a million.

Triggers keep them in the transaction that writes a cost, whoever writes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alembic.operations import Operations

revision = "0006"
down_revision = "0005"

KEY: Final = "period_start, period_type, provider, model"
COUNTED: Final = ("provider", "model", "period_type", "period_start", "cost")
TOKENS: Final = ("input_tokens", "output_tokens")

PARTS: Final = "1073741824"
"""2**30. Whole dollars and parts of a dollar are added as integers, which loses nothing."""


def upgrade(op: Operations) -> None:
    """Create the sums and the triggers that keep them, and add up what is there."""
    place = _prefix(op)
    if op.get_context().dialect.name == "sqlite":
        _upgrade_sqlite(op, place)
    else:
        _upgrade_postgresql(op, place)


def downgrade(op: Operations) -> None:
    """Drop them."""
    place = _prefix(op)
    sqlite = op.get_context().dialect.name == "sqlite"
    for event in ("insert", "update", "delete", "truncate"):
        if not sqlite:  # With the trigger.
            op.execute(f"DROP FUNCTION IF EXISTS {place}costs_{event}_days() CASCADE")
        elif event != "truncate":
            op.execute(f"DROP TRIGGER IF EXISTS {place}costs_{event}_days")
    op.execute(f"DROP TABLE IF EXISTS {place}cost_days")


def _prefix(op: Operations) -> str:
    schemas: Mapping[str, str | None] = op.get_context().opts["schemas"]
    place = schemas["costs"]
    if place is None:
        return ""
    return f"{op.get_context().dialect.identifier_preparer.quote_schema(place)}."


# SQLite


def _upgrade_sqlite(op: Operations, place: str) -> None:
    # A total drifts when each addition is rounded, so what rounding took away is kept beside it.
    op.execute(
        f"CREATE TABLE IF NOT EXISTS {place}cost_days"
        " (period_start DATE NOT NULL, period_type VARCHAR NOT NULL, provider VARCHAR NOT NULL,"
        " model VARCHAR NOT NULL, calls INTEGER NOT NULL, priced INTEGER NOT NULL,"
        " total REAL NOT NULL, lost REAL NOT NULL, input_tokens INTEGER NOT NULL,"
        f" output_tokens INTEGER NOT NULL, PRIMARY KEY ({KEY})) WITHOUT ROWID"
    )
    counted = (*COUNTED, *TOKENS)
    old, new = (", ".join(f"{row}.{name}" for name in counted) for row in ("old", "new"))
    events = {
        "insert": ("INSERT ON costs", _added()),
        "update": (
            f"UPDATE OF {', '.join(counted)} ON costs WHEN ({old}) IS NOT ({new})",
            f"{_removed()} {_added()}",
        ),
        "delete": ("DELETE ON costs", _removed()),
    }
    for name, (event, work) in events.items():
        op.execute(f"DROP TRIGGER IF EXISTS {place}costs_{name}_days")
        op.execute(f"CREATE TRIGGER {place}costs_{name}_days AFTER {event} BEGIN {work} END")
    op.execute(f"DELETE FROM {place}cost_days")
    op.execute(f"INSERT INTO {place}cost_days {_sqlite_sums(place)}")


def _added() -> str:
    # Two statements, for whoever writes INSERT OR REPLACE: see the triggers of 0002.
    return (
        f"INSERT INTO cost_days SELECT {_of('new', KEY)}, 0, 0, 0.0, 0.0, 0, 0"
        f" WHERE NOT EXISTS (SELECT 1 FROM cost_days WHERE {_is('new')});"
        f" {_counted('new', '+')}"
    )


def _removed() -> str:
    return f"{_counted('old', '-')} DELETE FROM cost_days WHERE {_is('old')} AND calls <= 0;"


def _counted(row: str, sign: str) -> str:
    """Return the UPDATE that adds a row to its sums, or takes it away.

    Knuth, The Art of Computer Programming 2, 4.2.2, theorem B: what rounding takes away from the
    sum of two floats is itself a float, and comes out of six additions.
    """
    cost = f"{sign} {_cost(f'{row}.')}"
    # The sum, and which part of it is due to the cost.
    both = f"(total {cost})"
    due = f"({both} - total)"
    tokens = "".join(f", {name} = {name} {sign} {_tokens(name, f'{row}.')}" for name in TOKENS)
    return (
        f"UPDATE cost_days SET calls = calls {sign} 1,"
        f" priced = priced {sign} ({row}.cost IS NOT NULL), total = {both},"
        f" lost = lost + (total - ({both} - {due})) + (({cost}) - {due}){tokens}"
        f" WHERE {_is(row)};"
    )


def _sqlite_sums(place: str) -> str:
    """Return the sums of what is stored, exact also where SQLite's own sum of floats drifts."""
    tokens = ", ".join(f"sum({_tokens(name)}) AS {name}" for name in TOKENS)
    both = "(whole + part)"
    return (
        f"SELECT {KEY}, calls, priced, {both},"
        f" (whole - ({both} - ({both} - whole))) + (part - ({both} - whole)) + rest,"
        " input_tokens, output_tokens"
        f" FROM (SELECT {KEY}, count(*) AS calls, count(cost) AS priced,"
        " CAST(sum(dollars) AS REAL) AS whole,"
        f" sum(CAST((counted - dollars) * {PARTS} AS INTEGER)) / {PARTS}.0 AS part,"
        f" sum((counted - dollars) * {PARTS} - CAST((counted - dollars) * {PARTS} AS INTEGER))"
        f" / {PARTS}.0 AS rest, {tokens}"
        " FROM (SELECT *, CAST(counted AS INTEGER) AS dollars"
        f" FROM (SELECT *, {_cost()} AS counted FROM {place}costs)) GROUP BY {KEY})"
    )


def _cost(row: str = "") -> str:
    # Other programs may have stored anything, with checks switched off. That counts nothing.
    return f"CASE WHEN {row}cost BETWEEN 0 AND 1e9 THEN {row}cost ELSE 0.0 END"


def _tokens(name: str, row: str = "") -> str:
    return (
        f"CASE WHEN typeof({row}{name}) = 'integer' AND {row}{name} BETWEEN 0 AND 2147483647"
        f" THEN {row}{name} ELSE 0 END"
    )


def _of(row: str, names: str) -> str:
    return ", ".join(f"{row}.{name}" for name in names.split(", "))


def _is(row: str) -> str:
    return " AND ".join(f"{name} = {row}.{name}" for name in KEY.split(", "))


# PostgreSQL


def _upgrade_postgresql(op: Operations, place: str) -> None:
    # Several rows may be of one group, see _add_up. Half of each page is free for new versions of
    # its rows, so that these need no entry in an index.
    op.execute(
        f"CREATE TABLE IF NOT EXISTS {place}cost_days"
        " (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, period_start date NOT NULL,"
        ' period_type varchar COLLATE "C" NOT NULL, provider varchar COLLATE "C" NOT NULL,'
        ' model varchar COLLATE "C" NOT NULL, calls bigint NOT NULL, priced bigint NOT NULL,'
        " total numeric NOT NULL, input_tokens bigint NOT NULL, output_tokens bigint NOT NULL)"
        " WITH (fillfactor = 50)"
    )
    op.execute(f"CREATE INDEX IF NOT EXISTS cost_days_idx ON {place}cost_days ({KEY}, seq)")
    added, removed = _postgresql_sums("added"), _postgresql_sums("removed", "-")
    names = ("calls", "priced", "total", *TOKENS)
    changed = (
        f"SELECT {KEY}, {', '.join(f'sum({name}) AS {name}' for name in names)}"
        f" FROM ({added} UNION ALL {removed}) parts GROUP BY {KEY}"
        f" HAVING {' OR '.join(f'sum({name}) <> 0' for name in names)}"
    )
    new, old = "NEW TABLE AS added", "OLD TABLE AS removed"
    events = {
        "insert": (f"REFERENCING {new}", _add_up(added)),
        "update": (f"REFERENCING {old} {new}", _add_up(changed, may_end=True)),
        "delete": (f"REFERENCING {old}", _add_up(removed, may_end=True)),
        # It also takes what a transaction does not see, as TRUNCATE of the costs does.
        "truncate": ("", "BEGIN TRUNCATE cost_days; RETURN NULL; END"),
    }
    for event, (tables, work) in events.items():
        function = f"{place}costs_{event}_days"
        op.execute(
            f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql"
            # A plan that was made for a few rows must not stay when there are many.
            f" SET enable_seqscan = off AS $$ {work} $$"
        )
        # By a bare name, the search path of whoever writes would choose the table, and may choose
        # that of another tenant.
        op.execute(
            "DO $$ DECLARE place text; BEGIN"
            " SELECT relnamespace::regnamespace::text INTO place FROM pg_class"
            f" WHERE oid = '{place}costs'::regclass;"
            f" EXECUTE format('ALTER FUNCTION %s.costs_{event}_days()"
            " SET search_path = %s, pg_temp', place, place); END $$"
        )
        op.execute(
            f"CREATE OR REPLACE TRIGGER costs_{event}_days AFTER {event.upper()}"
            f" ON {place}costs {tables} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        )
    # Nobody writes a cost meanwhile: making a trigger locks the table until the transaction ends.
    op.execute(f"DELETE FROM {place}cost_days")
    op.execute(
        f"INSERT INTO {place}cost_days ({KEY}, {', '.join(names)})"
        f" {_postgresql_sums(f'{place}costs')}"
    )


def _postgresql_sums(source: str, sign: str = "") -> str:
    tokens = ", ".join(f"{sign}COALESCE(sum({name}), 0) AS {name}" for name in TOKENS)
    return (
        f"SELECT {KEY}, {sign}count(*) AS calls, {sign}count(cost) AS priced,"
        f" {sign}COALESCE(sum(cost::numeric), 0) AS total, {tokens} FROM {source} GROUP BY {KEY}"
    )


def _add_up(groups: str, *, may_end: bool = False) -> str:
    """Return the body of a function that adds to a row of each group.

    Whoever adds holds the row until the end of his transaction. So that nobody waits for another,
    or both for each other, each takes a row that is free, and where there is none makes one. They
    are as many as there are transactions at once.

    Where a transaction sees one moment only, a row that has changed since is an error. So there
    each makes a row.

    Args:
        groups: Returns what to add to each group.
        may_end: Whether a row may come to be zero, and go.
    """
    names = ("calls", "priced", "total", *TOKENS)
    is_group = " AND ".join(f"{name} = changed.{name}" for name in KEY.split(", "))
    is_end = " AND ".join(f"{name} = - changed.{name}" for name in names)
    update = (
        f"UPDATE cost_days SET {', '.join(f'{name} = {name} + changed.{name}' for name in names)}"
        " WHERE ctid = free;"
    )
    end = f"DELETE FROM cost_days WHERE ctid = free AND {is_end}; CONTINUE WHEN FOUND;"
    return (
        "DECLARE changed record; free tid; may_share boolean :="
        " current_setting('transaction_isolation') IN ('read committed', 'read uncommitted');"
        f" BEGIN FOR changed IN {groups} LOOP"
        " free := NULL;"
        # The newest versions first: what is before them may be left there by a long reader.
        f" IF may_share THEN SELECT ctid INTO free FROM cost_days WHERE {is_group}"
        " ORDER BY seq DESC LIMIT 1 FOR UPDATE SKIP LOCKED; END IF;"
        " IF free IS NULL THEN"
        f" INSERT INTO cost_days ({KEY}, {', '.join(names)})"
        f" VALUES ({_of('changed', KEY)}, {_of('changed', ', '.join(names))});"
        f" CONTINUE; END IF; {end if may_end else ''} {update}"
        " END LOOP; RETURN NULL; END"
    )

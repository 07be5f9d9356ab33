"""What the page about records says around its tables."""

from __future__ import annotations

from typing import Final

PAGE: Final = """\
# Records, costs, memory and starts, beside bare drivers and peers

Made by `make bench-records`, which starts a PostgreSQL server of its own; the figures, with more
digits, are in [records.json](records.json).

{reaches}

A figure is the median time of ours divided by that of the other, unless it says otherwise; below 1
ours is faster. In bold: missed.

![Median time of each kind of work by number of rows, on both databases](records.svg)

## How it was measured

- Ours is asked through its public API, and what it is put beside does the same work in the same
  process, in turns: some calls of one, then of the other, another one beginning each time. What
  slows the machine down slows both.
- **Bare** is the driver with the rows ready as it takes them: tables with the same columns, checks
  and indexes, on SQLite by aiosqlite over the same SQLite, in WAL with `synchronous=FULL`, so that
  what is acknowledged is on the disk on both sides; on PostgreSQL by a pool of asyncpg with ten
  connections, which keep prepared statements. It makes no records of rows, checks nothing, and
  reads by `execute_fetchall`, the call of aiosqlite that goes to its thread once; **by a cursor**
  is how its pages show it.
- What is not to grow is asked of another database too, which has a thousand rows at each size.
- `add_many` is put beside one `executemany` in one transaction, and on PostgreSQL beside COPY. Of
  16 tasks on ten connections the time is that until all are done.
- All costs fall in one month, which is reported by provider, model and day. The **table of days**
  is what LiteLLM keeps: whoever records a cost adds it to the row of its day, provider and model in
  the same transaction, and a report adds up days.
- **LangGraph's stores** are AsyncSqliteStore, on a connection in WAL with `synchronous=FULL` as
  ours, and AsyncPostgresStore on one connection. They are filled by SQL into their tables. Of what
  is set, every second key is new.
- {documents:,} documents with vectors of {dimensions} numbers, made as for [search.md](search.md),
  are stored as templates, in LangGraph's stores with an embedding function that looks them up, in
  Chroma and in langchain-postgres, all with their makers' defaults. Storing includes the index that
  searches use, where a store makes one, and with ours the words for searches by words.
  langchain-postgres runs in a process and an environment of its own, as it wants an older pgvector,
  and takes the time itself.
- Programs are started in turns with their bytecode compiled. A database that is opened is
  up to date; first in a process means from before the import of the library.
- **Load** is the average of the last minute, the benchmark's own work included. Above the number of
  cores, others were in the way.

Repeat it with `make bench-records` (add `BENCH_OPTIONS=--quick` to see that it runs, or
`BENCH_OPTIONS="--rows 100000"` for less), or `python -m benchmarks.records --help` in an
environment with the group `bench`.

## The report, to the cent

{sums}

## All figures

Milliseconds, p50 / p95; one number where there is one call.

{details}
Load at the end {load:.1f}; it took {minutes:.0f} minutes.
{note}
{started} UTC; {processor}, {cores} cores, {memory_gb} GB, {system}, Python {python};
{versions}.
"""

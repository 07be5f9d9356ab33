"""The rows that fill a database: row n is always the same, so that two can be filled alike.

They are `portable` rows, which SQLite's driver stores as they are.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from paracle_meta import CostRecord, GenerationResult
from paracle_meta.backends.portable import encode_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from paracle_meta.backends.portable import Row

BATCH: Final = 5_000
"""Rows that are made and stored at once."""

MONTH: Final = date(2026, 1, 1)
"""The month that all costs fall in."""

BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)

SECONDS: Final = 31 * 24 * 3600
"""Of that month."""

TEXT: Final = (
    "Review the code for secrets and injections, then explain what an attacker could do with it "
    "and propose a smaller change that keeps the tests green.\n"
) * 3

RATED: Final = 10
"""One generation of so many has feedback, two entries each."""

KEYS: Final = 100
"""Keys of a session."""

MODELS: Final = [(f"provider-{n % 5}", f"model-{n % 5}-{n // 5}") for n in range(15)]
"""Whom the calls were paid to."""


def generation_id(n: int) -> str:
    return f"gen-{n:09}"


def generations(span: range) -> list[Row]:
    rows: list[Row] = []
    for n in span:
        moment = encode_time(BEGINNING + timedelta(seconds=n))
        rows.append(
            (
                generation_id(n), "agent", f"Reviewer {n}", "Looks for what is wrong.", TEXT,
                n % 100 / 10, "openai", "gpt-4o-mini", n % 5000, n % 5000 / 1e6, moment,
                f'{{"step":{n},"tools":["read","write"]}}', moment,
            )
        )  # fmt: skip
    return rows


def feedback(span: range) -> list[Row]:
    rows: list[Row] = []
    for n in span:
        if n % RATED == 0:
            moment = encode_time(BEGINNING + timedelta(seconds=n))
            rows += [
                (f"fbk-{n:09}-{k}", generation_id(n), 1 + (n + k) % 5, "Good.", moment, moment)
                for k in range(2)
            ]
    return rows


def amount(n: int) -> float:
    """Return what call n cost, in US dollars: as prices a million tokens come out."""
    return (n * 7919 % 90_000) / 1e6 + (n % 7) / 3e5


def moment_of_call(n: int) -> datetime:
    return BEGINNING + timedelta(seconds=n * 7919 % SECONDS)


def costs(span: range) -> list[Row]:
    rows: list[Row] = []
    for n in span:
        made = moment_of_call(n)
        moment = encode_time(made)
        rows.append(
            (
                f"cst-{n:09}", *MODELS[n % len(MODELS)], n % 4000, n % 900, amount(n), "daily",
                made.date().isoformat(), moment, moment,
            )
        )  # fmt: skip
    return rows


def address(n: int) -> tuple[str, str]:
    """Return the session and the key of item n."""
    return f"session-{n // KEYS}", f"key-{n % KEYS}"


def value(n: int) -> dict[str, Any]:
    return {"step": n, "path": f"src/module_{n % 1000}.py", "done": n % 2 == 0}


def memory(span: range) -> list[Row]:
    rows: list[Row] = []
    for n in span:
        session, key = address(n)
        moment = encode_time(BEGINNING + timedelta(seconds=n))
        done = "true" if n % 2 == 0 else "false"
        text = f'{{"step":{n},"path":"src/module_{n % 1000}.py","done":{done}}}'
        rows.append((f"mem-{n:09}", session, key, text, "session", moment, None, moment))
    return rows


def batches(rows: Callable[[range], list[Row]], span: range) -> Iterator[list[Row]]:
    for start in range(span.start, span.stop, BATCH):
        if made := rows(range(start, min(start + BATCH, span.stop))):
            yield made


def new_generation(kind: str, n: int) -> GenerationResult:
    """Return a record that is not stored yet, of the size of those that are."""
    moment = BEGINNING + timedelta(days=400, seconds=n)
    return GenerationResult(
        id=f"gen-{kind}-{n:09}",
        artifact_type="agent",
        name=f"Reviewer {n}",
        description="Looks for what is wrong.",
        content=TEXT,
        quality_score=n % 100 / 10,
        provider="openai",
        model="gpt-4o-mini",
        tokens_used=n % 5000,
        cost=n % 5000 / 1e6,
        created_at=moment,
        updated_at=moment,
        metadata={"step": n, "tools": ["read", "write"]},
    )


def new_cost(kind: str, n: int) -> CostRecord:
    made = moment_of_call(n)
    provider, model = MODELS[n % len(MODELS)]
    return CostRecord(
        id=f"cst-{kind}-{n:09}",
        provider=provider,
        model=model,
        input_tokens=n % 4000,
        output_tokens=n % 900,
        cost=amount(n),
        period_start=made.date(),
        created_at=made,
        updated_at=made,
    )

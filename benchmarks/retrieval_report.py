"""The figures of `benchmarks.retrieval` as a page that people can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from benchmarks.report import Run, number, span, table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PAGE: Final = """\
# Search in real texts: by meaning, by words, by both

Made by `python -m benchmarks.retrieval`, which starts a PostgreSQL server of its own; the figures,
with more digits, are in [retrieval.json](retrieval.json).

## How it was measured

- {texts:,} names and one-line descriptions of published software packages are stored as templates.
  {queries} queries are asked through `MetaDatabase.vector_search`, each in the modes `text`
  (words), `vector` (meaning) and `hybrid` (both). {names} queries are the name of a package,
  {descriptions} say in other words what it does. The files are in `benchmarks/data`.
- One text is right for each query. **MRR@10** is the mean of 1 / its position among the first ten,
  0 where it is not there: 1 when it always comes first, 0.5 when it always comes second.
  **recall@10** is the share of the queries that have it among the first ten.
- Other texts that answer a description as well count as wrong. So 1 is out of reach: compare the
  modes with each other, not with 1, nor with figures from other texts.
- Another {queries} queries would give other figures. **±** beside a difference is 1.96 standard
  errors of the same queries asked both ways; a difference that is smaller may be chance.
- Every setting has its default, but for `local_model`. How a text becomes terms and how the two
  scores become one was chosen with these texts and queries
  ([0011](../decisions/0011-words-and-meaning.md)), so expect a little less of others.
- Both databases hold the same vectors and have their vector index. One query is asked at a time,
  in turns of 20. **Ready vector** is the time of a search that is given the vector of the query,
  **embedding** the time with embedding the query, as programs mostly do. Mode `text` needs no
  vector.

Repeat it with `make bench-search`, which makes all pages of this folder, or with
`python -m benchmarks.retrieval --help` in an environment with the extra `minilm` and the group
`dev`.

## What to make of it

- Where people type what they look for, choose `hybrid`: it finds descriptions better than `text`
  and `vector` do, and a name nearly always first.
- `text` needs no model and always finds a name. Of descriptions it finds what shares words with
  them, which here is as much as a small model finds by meaning alone.
- `vector` misses a few names in a hundred. It is for ready vectors, and for texts that have few
  words in common with what is asked.
- `minilm` understands descriptions better than `wordllama`, and embedding takes it milliseconds a
  text where `wordllama` takes a fraction of one.
- Words are found alike on both databases. Vectors differ where an index misses one that is near;
  raise `hnsw_ef_search` on PostgreSQL if that matters to you.
- **Load** is the average of the last minute, the work of the benchmark included. Above the number
  of cores, others were in the way, and the times are too long.

{models}
{note}{started} UTC; {processor}, {cores} cores, {memory_gb} GB, {system}, Python {python};
{versions}.
"""

MODEL: Final = """\
## {model}, {dimensions} dimensions

MRR@10 / recall@10:

{found}

Hybrid beside the others, difference of MRR@10:

{differences}

PostgreSQL beside SQLite, and the times:

{databases}

Embedding and storing all texts took {filled_s:.0f} s on SQLite. Of the ten nearest vectors the
index finds {index_recall}. Load while asked {loads}.
"""


def write_retrieval(run: Run, folder: Path) -> None:
    """Write ``retrieval.md`` into the folder.

    Args:
        run: What `benchmarks.retrieval` measured.
        folder: Where to.
    """
    kinds = next(iter(run["models"][0]["stores"][0]["modes"].values()))["kinds"]
    page = PAGE.format(
        **{key: run[key] for key in ("texts", "queries")},
        **run["machine"],
        names=kinds["name"]["queries"],
        descriptions=kinds["description"]["queries"],
        models="\n".join(_model(model) for model in run["models"]),
        note=f"{run['note']}\n\n" if run["note"] else "",
        started=run["started"][:16].replace("T", " "),
        versions=", ".join(
            [store["version"] for store in run["models"][0]["stores"]]
            + [f"{name} {version}" for name, version in run["versions"].items()]
        ),
    )
    (folder / "retrieval.md").write_text(page, encoding="utf-8")


def _model(model: Mapping[str, Any]) -> str:
    stores = model["stores"]
    return MODEL.format(
        **{key: model[key] for key in ("model", "dimensions", "filled_s")},
        found=_found(stores),
        differences=_differences(stores),
        databases=_databases(model),
        loads=span(model["loads"]),
        index_recall=" and ".join(
            f"{store['index_recall']:.2%} on {store['title']}" for store in stores
        ),
    )


def _found(stores: list[dict[str, Any]]) -> str:
    kinds = list(stores[0]["modes"]["text"]["kinds"])
    rows = [
        [
            _bold(f"{store['title']}, {mode}", mode),
            *[
                f"{found['kinds'][kind]['mrr']:.3f} / {found['kinds'][kind]['recall']:.3f}"
                for kind in kinds
            ],
        ]
        for store in stores
        for mode, found in store["modes"].items()
    ]
    return table(["", *kinds], rows)


def _bold(title: str, mode: str) -> str:
    return f"**{title}**" if mode == "hybrid" else title


def _differences(stores: list[dict[str, Any]]) -> str:
    others = list(stores[0]["hybrid_minus"])
    rows = [
        [
            store["title"],
            *[
                f"{store['hybrid_minus'][other]['mrr']:+.3f}"
                f" ± {store['hybrid_minus'][other]['margin']:.3f}"
                for other in others
            ],
        ]
        for store in stores
    ]
    return table(["", *[f"minus {other}" for other in others]], rows)


def _databases(model: Mapping[str, Any]) -> str:
    stores = model["stores"]
    first, second = stores
    rows = []
    for mode in first["modes"]:
        mrr = [store["modes"][mode]["kinds"]["all"]["mrr"] for store in stores]
        rows.append(
            [
                mode,
                f"{mrr[1] - mrr[0]:+.4f}",
                f"{model['same_answers'][mode]:.1%}",
                *[number(store["modes"][mode]["p50_ms"]) for store in stores],
                *[
                    number(took) if (took := store["modes"][mode].get("p50_embedding_ms")) else ""
                    for store in stores
                ],
            ]
        )
    head = [
        "",
        "difference of MRR@10",
        "queries with the same ten in the same order",
        f"{first['title']} p50 ms, ready vector",
        f"{second['title']}",
        f"{first['title']} p50 ms, embedding",
        f"{second['title']}",
    ]
    return table(head, rows)

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cli.conftest import EXAMPLES, WAIT, paracle, process_environment

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

WITH_POSTGRES = Path(__file__).parents[2] / "tools" / "with_postgres.py"


def test_the_demo_shows_everything_and_twice_changes_nothing(cli: Cli) -> None:
    first = cli.json("demo", str(EXAMPLES))
    counts = cli.json("db", "status")["counts"]
    second = cli.json("demo", str(EXAMPLES))
    assert cli.json("db", "status")["counts"] == counts

    assert all(entry["created"] for entry in first["generations"])
    assert not any(entry["created"] for entry in second["generations"])
    assert first["problems"] == []
    for entry in second["generations"]:
        entry["created"] = True
    assert second["generations"] == first["generations"]
    assert counts["generations"] == len(first["generations"])
    assert counts["best_practices"] == len(first["practices"]["added"])
    assert len(second["practices"]["unchanged"]) == counts["best_practices"]
    promoted = [entry["generation_id"] for entry in first["promotions"]]
    assert promoted
    assert [entry["generation_id"] for entry in second["promotions"]] == promoted
    assert [entry["created"] for entry in second["promotions"]] == [False] * len(promoted)
    assert counts["templates"] == len(promoted)

    assert first["similar_templates"][0]["name"] == "Security Reviewer"
    assert first["similar_templates"] == second["similar_templates"]
    assert first["similar_practices"]
    assert {item["key"] for item in first["memory"]} == {"folder", "question", "answer"}
    for period in ("today", "month"):
        assert first[period]["total"] > 0
        assert first[period] == second[period]
    assert (first["today"]["calls"], first["today"]["unpriced_calls"]) == (counts["costs"], 2)


def test_a_changed_file_is_a_new_generation(sqlite: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "agents"
    folder.mkdir()
    file = folder / "reviewer.md"
    file.write_text("---\nprovider: p\nmodel: m\ncost: 0.25\n---\n# Reviewer\n")
    sqlite.ok("demo", str(folder))
    file.write_text(file.read_text().replace("# Reviewer", "# Second reviewer"))
    report = sqlite.json("demo", str(folder))
    assert report["today"]["total"] == 0.5
    assert [g["name"] for g in sqlite.json("generations", "list")] == [
        "Second reviewer",
        "Reviewer",
    ]


def test_a_record_that_was_changed_since_is_left_as_it_is(sqlite: Cli) -> None:
    first = sqlite.json("demo", str(EXAMPLES))
    generation_id = first["generations"][0]["generation"]["id"]
    sqlite.ok("generations", "update", generation_id, "--name", "Renamed")
    second = sqlite.json("demo", str(EXAMPLES))
    assert second["generations"][0]["generation"]["name"] == "Renamed"


def test_a_broken_file_is_named_and_the_others_are_taken(sqlite: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(EXAMPLES, folder)
    (folder / "agents" / "broken.md").write_text("---\nname: [\n---\ntext")
    (folder / "agents" / "dear.md").write_text("---\ncost: -1\nprovider: p\nmodel: m\n---\ntext")
    result = sqlite.run("demo", str(folder))
    assert result.exit_code == 1
    problems = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert [line.split(" was not taken")[0] for line in problems] == [
        "error: agents/broken.md",
        "error: agents/dear.md",
    ]
    assert "generations.cost must be at least 0" in problems[1]
    assert "Security Reviewer" in result.stdout
    assert sqlite.ok("generations", "count") == "14"


def test_a_folder_without_anything_to_take(sqlite: Cli, tmp_path: Path) -> None:
    assert "no Markdown file" in sqlite.fails(1, "demo", str(tmp_path))
    assert "There is no folder" in sqlite.fails(1, "demo", str(tmp_path / "missing"))


def test_the_printed_demo_has_its_sections_and_the_money() -> None:
    done = paracle("meta", "--url", "sqlite:///try", "demo", str(EXAMPLES))
    assert done.returncode == 0
    for title in (
        "Generations recorded from",
        "Good enough to be templates",
        "Best practices: 22 new",
        "Templates similar to “security audit agent”",
        "Remembered in the session “demo”",
        "Spent",
    ):
        assert f"\n{title}" in f"\n{done.stdout}"
    assert "this month" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "Recording" not in done.stderr


def test_the_demo_on_a_postgresql_of_its_own(server_folder: Path) -> None:
    environment = {**process_environment(), "TMPDIR": str(server_folder)}
    with_postgres = [sys.executable, str(WITH_POSTGRES)]
    demo = [sys.executable, "-m", "paracle_meta", "meta", "demo", str(EXAMPLES), "--json"]
    # Nothing is left of the first for the second to find.
    for _ in range(2):
        done = subprocess.run(
            [*with_postgres, *demo],
            capture_output=True,
            text=True,
            env=environment,
            timeout=WAIT,
            check=True,
        )
        assert all(entry["created"] for entry in json.loads(done.stdout)["generations"])
    failed = subprocess.run(
        [*with_postgres, "sh", "-c", "exit 7"], env=environment, timeout=WAIT, check=False
    )
    assert failed.returncode == 7
    assert list(server_folder.glob("paracle-postgres-*")) == []

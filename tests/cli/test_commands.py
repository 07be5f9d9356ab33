from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from paracle_meta.cli.app import app
from paracle_meta.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


def add_generation(cli: Cli, name: str = "Reviewer", *options: str) -> str:
    return cli.ok(
        *("generations", "add", "-", "--type", "agent", "--name", name, *options),
        stdin=f"# {name}\nIt reviews code.\n",
    )


def test_a_generation_from_its_addition_to_its_deletion(cli: Cli) -> None:
    generation_id = add_generation(cli, "Reviewer", "--quality-score", "8.5", "--tokens", "30")
    assert generation_id.startswith("gen-")

    shown = cli.json("generations", "show", generation_id)
    assert shown["content"] == "# Reviewer\nIt reviews code.\n"
    assert (shown["quality_score"], shown["tokens_used"]) == (8.5, 30)
    assert datetime.fromisoformat(shown["created_at"]).tzinfo == UTC
    assert shown["created_at"].endswith("Z")

    cli.ok("generations", "update", generation_id, "--name", "Second", "--metadata", '{"a": 1}')
    assert cli.json("generations", "show", generation_id)["metadata"] == {"a": 1}

    cli.ok("feedback", "add", generation_id, "4", "--comment", "good")
    assert "has feedback" in cli.fails(1, "generations", "delete", generation_id)
    cli.ok("generations", "delete", generation_id, "--cascade")
    assert cli.json("generations", "list") == []
    assert "no generation" in cli.fails(1, "generations", "show", generation_id)


def test_show_prints_the_text_alone_byte_for_byte(sqlite: Cli) -> None:
    text = "# Äpfel\n\ttab and \x1b[31mcolour\n"
    generation_id = sqlite.ok(
        *("generations", "add", "-", "--type", "agent", "--name", "x"), stdin=text
    )
    assert sqlite.run("generations", "show", generation_id, "--content").stdout == text


def test_lists_filter_and_page(cli: Cli) -> None:
    ids = [add_generation(cli, f"name {number}") for number in range(5)]
    cli.ok(
        *("generations", "add", "-", "--type", "skill", "--name", "other", "--quality-score", "3"),
        stdin="x",
    )

    assert cli.ok("generations", "count") == "6"
    assert cli.json("generations", "count", "--type", "agent") == {"count": 5}
    first = cli.json("generations", "list", "--type", "agent", "--limit", "2")
    assert [entry["id"] for entry in first] == ids[:2:-1]
    rest = cli.json("generations", "list", "--type", "agent", "--after", first[-1]["id"])
    assert [entry["id"] for entry in rest] == ids[2::-1]
    scored = cli.json("generations", "list", "--filter", '{"quality_score": {"$lt": 4}}')
    assert [entry["name"] for entry in scored] == ["other"]
    assert cli.json("generations", "list", "--until", "2020-01-01") == []
    since = cli.json("generations", "list", "--filter", '{"created_at": {"$gt": "2020-01-01"}}')
    assert len(since) == 6


def test_a_list_in_a_pipe_is_lines_of_tab_separated_values(sqlite: Cli) -> None:
    generation_id = add_generation(sqlite, "With\ttab\nand line")
    result = sqlite.run("generations", "list", "--limit", "1")
    ((first, kind, name, created),) = (line.split("\t") for line in result.stdout.splitlines())
    assert (first, kind, name) == (generation_id, "agent", "With tab and line")
    assert datetime.fromisoformat(created).tzinfo == UTC
    assert f"--after {generation_id}" in result.stderr


def test_an_empty_list_is_empty_on_stdout(sqlite: Cli) -> None:
    result = sqlite.run("feedback", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "Nothing found.\n"


def test_ratings_promote_and_templates_are_found_by_meaning(cli: Cli) -> None:
    reviewer = cli.ok(
        *("generations", "add", "-", "--type", "agent", "--name", "Security Reviewer"),
        *("--description", "Reviews code changes for security vulnerabilities."),
        stdin="text of the reviewer",
    )
    cli.ok(
        *("templates", "add", "-", "--type", "skill", "--name", "Baking", "--id", "tpl-bread"),
        stdin="How to bake bread.",
    )
    assert cli.json("templates", "promote", "--qualified") == []
    for rating in ("5", "4", "4"):
        cli.ok("feedback", "add", reviewer, rating)
    assert len(cli.json("feedback", "list", "--generation", reviewer)) == 3

    (promotion,) = cli.json("templates", "promote", "--qualified")
    assert promotion["reason"] == "3 ratings averaging 4.3"
    template_id = promotion["template"]["id"]
    assert cli.ok("templates", "promote", reviewer) == template_id

    for command in (
        ("templates", "search", "security audit agent"),
        ("search", "templates", "security audit agent"),
    ):
        found = cli.json(*command, "--top-k", "2")
        assert [match["id"] for match in found] == [template_id, "tpl-bread"]
        assert found[0]["similarity"] > found[1]["similarity"]
        assert "embedding" not in found[0]
        # By words only what has one of them is found, ranked by a score.
        (match,) = cli.json(*command[:-1], "bake bread", "--mode", "text")
        assert (match["id"], match["similarity"]) == ("tpl-bread", None)
        assert cli.ok(*command[:-1], "bread", "--mode", "text").split("\t")[1] == "tpl-bread"
        score, similarity, record_id, *_ = cli.ok(
            *command, "--mode", "hybrid", "--top-k", "1"
        ).split("\t")
        assert record_id == template_id
        assert float(score) > 0
        assert -1 <= float(similarity) <= 1
    (only,) = cli.json(
        "search", "templates", "agent", "--filter", json.dumps({"artifact_type": "skill"})
    )
    assert only["id"] == "tpl-bread"

    assert cli.ok("templates", "use", template_id) == "text of the reviewer"
    assert cli.json("templates", "show", template_id)["usage_count"] == 1
    cli.ok("templates", "update", template_id, "--pattern", "Cakes and bread.")
    vector = cli.json("templates", "show", template_id, "--embedding")["embedding"]
    assert len(vector) == 256
    cli.ok("templates", "delete", template_id)
    assert len(cli.json("templates", "list")) == 1


def test_costs_are_reported_by_day_and_month(cli: Cli) -> None:
    cost_id = cli.ok(
        *("costs", "record", "anthropic", "claude", "--input-tokens", "1000"),
        *("--output-tokens", "500", "--cost", "0.015", "--at", "2026-03-01T23:30:00-02:00"),
    )
    cli.ok("costs", "record", "openai", "gpt", "--at", "2026-03-31")

    (other, cost) = cli.json("costs", "list", "--filter", '{"period_start": {"$gt": "2026-03-01"}}')
    assert (cost["id"], cost["period_start"], other["provider"]) == (
        cost_id,
        "2026-03-02",
        "openai",
    )
    line = f"{cost_id}\tanthropic\tclaude\t0.015\t2026-03-02"
    assert line in cli.ok("costs", "list").splitlines()
    month = cli.json("costs", "report", "--on", "2026-03-15")
    assert (month["total"], month["calls"], month["unpriced_calls"]) == (0.015, 2, 1)
    assert list(month["by_day"]) == ["2026-03-02", "2026-03-31"]
    day = cli.json("costs", "report", "--period", "daily", "--on", "2026-03-02")
    assert (day["calls"], day["by_model"]["claude"]["output_tokens"]) == (1, 500)
    printed = cli.ok("costs", "report", "--on", "2026-03-15")
    assert "$0.0150" in printed
    assert "unknown" in printed


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("3", 3),
        ("1.5", 1.5),
        ("true", True),
        ("null", None),
        ('{"a": [1, "2"]}', {"a": [1, "2"]}),
        ('"3"', "3"),
        ("hello world", "hello world"),
        ("{not json", "{not json"),
    ],
)
def test_memory_keeps_the_json_type_of_a_value(sqlite: Cli, argument: str, value: object) -> None:
    sqlite.ok("memory", "set", "k", argument)
    stored = sqlite.json("memory", "get", "k")["value"]
    assert stored == value
    assert type(stored) is type(value)


def test_memory_takes_any_text_as_text_when_told_to(sqlite: Cli) -> None:
    sqlite.ok("memory", "set", "zip", "01234", "--text")
    sqlite.ok("memory", "set", "count", "-", "--text", stdin="12")
    assert sqlite.json("memory", "get", "zip")["value"] == "01234"
    assert sqlite.json("memory", "get", "count")["value"] == "12"
    assert sqlite.ok("memory", "get", "count") == "12"


def test_memory_from_set_to_clear(cli: Cli) -> None:
    cli.ok("memory", "set", "step", "-", "--session", "s1", stdin='{"n": 3}')
    cli.ok("memory", "set", "step", "4", "--session", "s2", "--scope", "project")
    cli.ok("memory", "set", "gone", "5", "--ttl", "0.001")
    assert cli.ok("memory", "get", "step", "--session", "s1") == '{"n": 3}'
    assert "step" in cli.fails(1, "memory", "get", "step")
    assert [item["value"] for item in cli.json("memory", "list", "--scope", "project")] == [4]
    assert len(cli.json("memory", "list")) == 2
    assert cli.ok("memory", "purge") == "1"
    cli.ok("memory", "delete", "step", "--session", "s1")
    assert cli.json("memory", "clear", "--session", "s2") == {"deleted": 1}
    assert "--session" in cli.fails(2, "memory", "clear")


def test_practices_are_loaded_once_and_updated_when_edited(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "practices.yaml"
    file.write_text(
        "- category: testing\n  title: Real database\n  content: Use one.\n  tags: [ci, db]\n"
        "- category: security\n  title: No secrets\n  content: Keep keys out of prompts.\n"
    )
    loaded = cli.json("practices", "load", str(file))
    assert [practice["title"] for practice in loaded["added"]] == ["Real database", "No secrets"]
    file.write_text(file.read_text().replace("Use one.", "Use the real one."))
    loaded = cli.json("practices", "load", str(file))
    assert [practice["content"] for practice in loaded["updated"]] == ["Use the real one."]
    assert (len(loaded["added"]), len(loaded["unchanged"])) == (0, 1)

    (tagged,) = cli.json("practices", "list", "--tag", "ci", "--tag", "db")
    assert cli.json("practices", "show", tagged["id"])["content"] == "Use the real one."
    (nearest, _) = cli.json("practices", "search", "leaked API key")
    assert nearest["title"] == "No secrets"
    (same, _) = cli.json("search", "best_practices", "leaked API key")
    assert same == nearest
    cli.ok("practices", "delete", tagged["id"])
    added = cli.ok("practices", "add", "-", "--category", "c", "--title", "t", stdin="x")
    assert cli.json("practices", "list")[0]["id"] == added


def test_the_state_of_a_database_before_and_after_its_first_use(cli: Cli) -> None:
    before = cli.json("db", "status")
    assert (before["revision"], before["counts"]) == (None, {})
    applied = cli.ok("db", "migrate").splitlines()
    assert applied == ["0001", "0002", "0003", "0004", "0005", "0006"]
    assert applied[-1] == before["head"]
    assert cli.ok("db", "migrate") == ""
    after = cli.json("db", "status")
    assert after["revision"] == after["head"]
    assert after["counts"]["generations"] == 0
    assert "(current)" in cli.ok("db", "status")


def test_migrate_prints_its_sql_and_changes_nothing(cli: Cli) -> None:
    script = cli.ok("db", "migrate", "--sql")
    assert "CREATE TABLE" in script
    assert cli.json("db", "status")["revision"] is None


def test_where_the_database_is(sqlite: Cli, tmp_path: Path) -> None:
    assert sqlite.ok("db", "path") == str(tmp_path / "db")
    server = type(sqlite)("postgresql://me:secret-word@db.example/x")
    assert server.json("db", "path") == {
        "backend": "postgresql",
        "path": "postgresql://me:**********@db.example/x",
    }


def test_the_configuration_is_written_checked_and_shown(
    sqlite: Cli, nothing_configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    written = nothing_configured / sqlite.ok("config", "init")
    assert written == nothing_configured / ".parac" / "config" / "meta_agent.yaml"
    assert "exists" in sqlite.fails(2, "config", "init")
    sqlite.ok("config", "init", "--force")
    written.write_text("database:\n  pool_size: 3\n")
    assert str(written) in sqlite.run("config", "validate").stderr

    settings = sqlite.json("config", "show")["database"]
    assert settings["pool_size"] == {"value": 3, "origin": str(written)}
    assert settings["openai_api_key"]["value"] == "**********"
    assert "sk-very-secret" not in sqlite.ok("config", "show")

    written.write_text("database:\n  pool_sise: 3\n")
    assert "did you mean pool_size?" in sqlite.fails(2, "config", "validate")
    assert "did you mean pool_size?" in sqlite.fails(2, "memory", "list")


def test_every_command_explains_itself_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    def help_of(*command: str) -> str:
        with pytest.raises(SystemExit) as left:
            app([*command, "--help"], prog_name="paracle")
        assert left.value.code == 0
        return capsys.readouterr().out

    def commands(page: str) -> list[tuple[str, str]]:
        lines = page.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
        return [(name, summary) for name, summary in (line.split(None, 1) for line in lines)]

    groups = commands(help_of("meta"))
    assert len(groups) == 21
    for group, _ in groups:
        page = help_of("meta", group)
        assert f"paracle meta {group}" in page.partition("Examples:")[2]
        for name, one_line in commands(page):
            assert not one_line.endswith("..."), (group, name)
            assert f"{group} {name}" in help_of("meta", group, name).partition("Examples:")[2]


def test_the_entry_point_runs_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["paracle", "--version"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("paracle-meta ")

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from paracle_meta.exceptions import InvalidValueError, NotFoundError
from paracle_meta.specs import Rating, parse_practices, parse_spec, read_folder
from tests.cli.conftest import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path


def test_front_matter_says_it_all() -> None:
    spec = parse_spec(
        "---\nname: Reviewer\ndescription: >-\n  Reviews\n  code.\nprovider: anthropic\n"
        "model: claude\ninput_tokens: 10\noutput_tokens: 20\ncost: 0.5\nquality_score: 9\n"
        "artifact_type: robot\nother: kept out\nratings:\n  - rating: 5\n    comment: good\n"
        "  - rating: 4\n---\n\n# Heading\n\nText.\n\n---\n\nMore.\n",
        "a/b.md",
    )
    assert (spec.name, spec.artifact_type, spec.description) == (
        "Reviewer",
        "robot",
        "Reviews code.",
    )
    assert (spec.provider, spec.model, spec.cost, spec.quality_score) == (
        "anthropic",
        "claude",
        0.5,
        9,
    )
    assert (spec.input_tokens, spec.output_tokens) == (10, 20)
    assert spec.ratings == (Rating(5, "good"), Rating(4))
    assert spec.content == "# Heading\n\nText.\n\n---\n\nMore.\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("# A heading #\n\nText.", "A heading"),
        ("Text.\n\n# Later\n", "Later"),
        ("Only text.", "file"),
        ("---\nquality_score: 3\n---\nText.", "file"),
        ("---\n---\n# Empty matter", "Empty matter"),
        ("\n---\nname: not at the top\n---\n", "file"),
    ],
)
def test_a_name_comes_from_the_heading_or_the_file(text: str, name: str) -> None:
    spec = parse_spec(text, "folder/file.md")
    assert spec.name == name
    assert spec.artifact_type == "document"


@pytest.mark.parametrize(
    ("matter", "reason"),
    [
        ("name: x\nbad: ]", "line 3"),
        ("a: 1\nb: 2\nname: 'x", "not valid YAML"),
        ("just text", "name: value"),
        ("name: 3", "name should be text, not int"),
        ("cost: cheap", "cost should be a number"),
        ("input_tokens: 1.5", "input_tokens should be a whole number"),
        ("quality_score: true", "quality_score should be a number"),
        ("ratings: 5", "ratings should be a list"),
        ("ratings: [5]", "rating 1 should be"),
        ("ratings:\n  - comment: x", "rating 1 has no number"),
    ],
)
def test_what_is_wrong_with_front_matter_is_said(matter: str, reason: str) -> None:
    with pytest.raises(InvalidValueError, match=reason):
        parse_spec(f"---\n{matter}\n---\ntext", "x.md")


def test_the_folder_names_the_type(tmp_path: Path) -> None:
    expected = {
        "agents/a.md": "agent",
        "policies/b.md": "policy",
        "skills/pdf/SKILL.md": "skill",
        "corpus/c.md": "document",
        "d.md": "document",
    }
    for name in [*expected, "README.md", "agents/readme.md", ".git/agents/x.md", "agents/x.txt"]:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("text")
    found = read_folder(tmp_path)
    assert {spec.file: spec.artifact_type for spec in found.specs} == expected
    assert [s.artifact_type for s in read_folder(tmp_path / "agents").specs] == ["agent"]
    assert (found.practices, found.problems) == ([], [])


def test_a_broken_file_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "bad.md").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "good.md").write_text("\ufeff# Good\n")
    (tmp_path / "broken.md").write_text("---\nname: ]\n---\n")
    (tmp_path / "best_practices.yaml").write_text("- title: no category\n  content: x\n")
    found = read_folder(tmp_path)
    assert [spec.name for spec in found.specs] == ["Good"]
    reasons = {problem.file: problem.reason for problem in found.problems}
    assert reasons["bad.md"] == "it is not UTF-8 text"
    assert "line 2" in reasons["broken.md"]
    assert "best practice 1" in reasons["best_practices.yaml"]


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("x")
    with pytest.raises(NotFoundError, match="no Markdown file"):
        read_folder(tmp_path)
    with pytest.raises(NotFoundError, match="no folder"):
        read_folder(tmp_path / "missing")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1", "should be a list"),
        ("- just text", "best practice 1"),
        ("- {category: c, title: t}", "content is missing"),
        ("- {category: c, title: t, content: x, tag: [a]}", "'tag'"),
        ("- {category: c, title: t, content: x, tags: a}", "tags should be a list"),
        ("- &a {category: c, title: t, content: x}\n- *a", "best practice 2 .* best practice 1"),
    ],
)
def test_what_is_wrong_with_best_practices_is_said(text: str, reason: str) -> None:
    with pytest.raises(InvalidValueError, match=reason):
        parse_practices(text, "p.yaml")


def test_the_examples_are_read_without_a_problem() -> None:
    found = read_folder(EXAMPLES)
    assert found.problems == []
    assert len(found.specs) >= 12
    assert {spec.artifact_type for spec in found.specs} == {"agent", "workflow", "skill", "policy"}
    assert len(found.practices) > 10

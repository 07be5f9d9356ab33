"""The page about reliability says what the figures beside it say."""

from __future__ import annotations

import json
from pathlib import Path

from tools.make_reliability import FIGURES, PAGE, page

ROOT = Path(__file__).parents[1]


def test_the_page_is_made_of_its_figures() -> None:
    lines = [json.loads(line) for line in (ROOT / FIGURES).read_text("utf-8").splitlines()]
    assert (ROOT / PAGE).read_text("utf-8") == page(lines)

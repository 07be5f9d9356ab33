from __future__ import annotations

import pytest

import paracle_meta
from tools.make_reference import FOLDER, PAGES, ROOT, Reference


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return Reference(ROOT / "src").pages()


def test_the_committed_reference_is_current(pages: dict[str, str]) -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    stale = sorted(
        name for name in committed.keys() | pages.keys() if committed.get(name) != pages.get(name)
    )
    assert not stale, f"Run `make docs`: {', '.join(stale)} in docs/reference would change."


def test_every_public_name_is_documented() -> None:
    documented = {path.rpartition(".")[2] for page in PAGES for path in page.objects}
    assert set(paracle_meta.__all__) - documented == {"__version__"}

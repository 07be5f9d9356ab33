"""`python -m paracle_meta` is the command `paracle`."""

from __future__ import annotations

from paracle_meta.cli.main import main

main()

"""The entry point; `app` says what there is to run."""

import gc
import os
from typing import Final

GC_THRESHOLD: Final = 100_000
"""New objects after which Python looks for garbage, from 700 to 2,000 unless told.

A command that reads one value ends with 57,000 objects, of which none is garbage.
"""


def main() -> None:
    """Run the command line; the entry point of the package.

    What is set here holds for the whole process, which is this command's own.
    """
    # Plugins of pydantic watch what is validated. Here nobody asked for one, and looking for them
    # in every installed package takes longer than all validation.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Modules and classes are nearly all there is, and they stay: so look for garbage more rarely,
    # from before the first large import on.
    gc.set_threshold(GC_THRESHOLD)
    try:
        from paracle_meta.cli.app import app

        app(prog_name="paracle")
    finally:
        # Nor does Python have to go through them all once more when it ends.
        gc.freeze()

"""Moves what is stored: into files and back, and from one database to another.

Everything streams: the memory it takes does not grow with the database.
"""

from __future__ import annotations

from paracle_meta.backends.backups import BackupReport, RestoreReport
from paracle_meta.transfer.backup import back_up, restore
from paracle_meta.transfer.comparing import Comparison, Named, Side, compare_databases
from paracle_meta.transfer.copying import CopiedTable, CopyReport, copy_database
from paracle_meta.transfer.exporting import ExportReport, export_jsonl, export_sql
from paracle_meta.transfer.importing import ImportReport, import_file

__all__ = [
    "BackupReport",
    "Comparison",
    "CopiedTable",
    "CopyReport",
    "ExportReport",
    "ImportReport",
    "Named",
    "RestoreReport",
    "Side",
    "back_up",
    "compare_databases",
    "copy_database",
    "export_jsonl",
    "export_sql",
    "import_file",
    "restore",
]

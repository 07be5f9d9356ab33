"""SQLite: a folder with one file a table."""

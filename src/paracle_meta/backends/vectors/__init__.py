"""Vectors of a collection, in memory and in files, ready to be searched; no database here."""

"""Transforms of records, applied while they are written."""

"""Writes weights as Parquet: which names, which types, which encoding, which rows."""

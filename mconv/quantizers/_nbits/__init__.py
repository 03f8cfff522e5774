"""Weights in blocks of 2 to 8 bits: ranges and codes, rounding by calibration, packing, and the
graph that unpacks them.

Everywhere a weight is a matrix ``[rows, columns]``: columns are what a product sums over (or the
features of a table's row), blocks lie along the columns."""

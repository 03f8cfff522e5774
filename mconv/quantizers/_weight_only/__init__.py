"""Weights stored in 16, 8 or 4 bits that operators of the standard turn back into floats."""

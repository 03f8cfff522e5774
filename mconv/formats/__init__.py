"""One module a file format: sniff() by content, inspect() without an engine, check() of the whole
structure.
"""

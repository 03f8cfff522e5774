"""The engine runs a plan: which step when and where, and what `mconv run` does from manifest to
files.
"""

"""The engine runs a plan: which step when and where, from the manifest to the files."""

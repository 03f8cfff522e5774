"""Python modules on disk: where one lies, and what it imports and defines, without running it."""

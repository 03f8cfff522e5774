"""The manifest is models.yml as frozen configuration, with every problem at its line and column."""

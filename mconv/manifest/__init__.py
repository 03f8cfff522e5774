"""models.yml as frozen configuration, every problem at its line and column."""

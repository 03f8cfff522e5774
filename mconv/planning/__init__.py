"""Configuration as a graph of steps with content keys."""

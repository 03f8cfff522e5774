"""Renderers of a report, which turn it into text."""

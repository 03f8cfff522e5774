"""Renderers: Report to text."""

"""Runs artifacts: one module a runtime."""

"""Finished steps, on this machine and shared."""

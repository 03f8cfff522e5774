"""The store keeps finished steps, on this machine and shared."""

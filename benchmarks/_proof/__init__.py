"""Parts of benchmarks/proof.py: models with their true domains, injected faults, the dense search
that tells which of them count, and the score."""

"""Discovery of models in a folder, of their architectures, and of this machine's devices."""

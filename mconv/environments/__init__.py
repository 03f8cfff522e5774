"""Python environments that steps run in: mconv's own, those of tools, and those of models."""

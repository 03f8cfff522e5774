"""mconv: convert, quantize and prove machine-learning models for every place they run."""

__version__ = "0.1.0"

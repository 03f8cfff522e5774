"""Helpers of the scikit-learn source: files, what was fitted, the model."""

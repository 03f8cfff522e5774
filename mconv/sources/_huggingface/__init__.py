"""Helpers of the Hugging Face source: checkpoints, inputs by modality, generation."""

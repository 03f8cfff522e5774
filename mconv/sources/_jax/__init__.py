"""Helpers of the JAX source: parameters from files, the model, its conversion."""

CHATTER = ("absl", "onnx_ir", "jax2onnx", "")  # loggers of Orbax and the converter

"""Parts of ``fp16``: constants made ready for onnxruntime's converter, its call, and its casts."""

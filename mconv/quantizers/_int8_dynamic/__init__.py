"""Parts of ``int8_dynamic``: what is changed before onnxruntime quantizes the matrix products."""

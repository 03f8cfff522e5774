"""One module a quantization method: ONNX to ONNX."""

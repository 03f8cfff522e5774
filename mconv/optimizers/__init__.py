"""One module an optimizer: ONNX to ONNX."""

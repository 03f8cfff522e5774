"""One module a source format: detect(), export() to ONNX, load() in its own framework."""

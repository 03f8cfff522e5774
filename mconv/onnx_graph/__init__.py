"""The one ONNX toolkit: reading, writing, describing and editing graphs."""

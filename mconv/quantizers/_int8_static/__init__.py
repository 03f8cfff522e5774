"""Parts of ``int8_static``, one module for each stage of static quantization."""

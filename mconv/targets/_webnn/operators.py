"""Lists every operator that the generator knows, by ONNX name (other domains are prefixed), but
those that always fold away."""

from __future__ import annotations

from mconv.targets._webnn import (
    contrib,
    conv,
    elementwise,
    embedding,
    index,
    matmul,
    norm,
    quant,
    reduce,
    resize,
    shape,
)
from mconv.targets._webnn.node import Handler

FAMILIES: dict[str, dict[str, Handler]] = {
    "element by element": elementwise.TABLE,
    "reductions": reduce.TABLE,
    "normalization": norm.TABLE,
    "convolution and pooling": conv.TABLE,
    "resampling": resize.TABLE,
    "matrix products": matmul.TABLE,
    "shape": shape.TABLE,
    "indices": index.TABLE,
    "quantization": quant.TABLE,
    "fused by onnxruntime": contrib.TABLE,
    "quantized tables": {
        op: handler for op, handler in embedding.TABLE.items() if op != embedding.ROWS
    },
}
OPERATORS: dict[str, Handler] = {
    op: handler for table in FAMILIES.values() for op, handler in table.items()
} | embedding.TABLE

"""Tells what every MLGraphBuilder method takes: data types and ranks of its operands, in the order
of its parameters.

Source: ``MLContext.opSupportLimits()`` of Chromium 153's CPU backend (TFLite/XNNPACK). A graph
within these limits is refused by no builder call there; other backends may take less, and then
``build()`` fails with the browser's own message."""

from __future__ import annotations

CODES = {
    "f": "float32",
    "h": "float16",
    "i": "int32",
    "u": "uint32",
    "l": "int64",
    "m": "uint64",
    "b": "int8",
    "B": "uint8",
    "n": "int4",
}
CONSTANT_BYTES = 128 * 1024 * 1024  # the largest constant that the browser takes in one piece

# method: one (data type codes, smallest rank, largest rank) for each operand
LIMITS: dict[str, tuple[tuple[str, int, int], ...]] = {
    "abs": (("fhi", 0, 8),),
    "add": (
        ("fhil", 0, 6),
        ("fhil", 0, 6),
    ),
    "argMax": (("fhibB", 1, 8),),
    "argMin": (("fhibB", 1, 8),),
    "averagePool2d": (("fh", 4, 4),),
    "batchNormalization": (
        ("fh", 1, 5),
        ("fh", 1, 1),
        ("fh", 1, 1),
    ),
    "cast": (("fhiulbB", 0, 8),),
    "ceil": (("fh", 0, 8),),
    "clamp": (("fh", 0, 5),),
    "concat": (("fhiulmbBn", 1, 8),),
    "conv2d": (
        ("fh", 4, 4),
        ("fh", 4, 4),
    ),
    "convTranspose2d": (
        ("fh", 4, 4),
        ("fh", 4, 4),
    ),
    "cos": (("fh", 0, 8),),
    "cumulativeSum": (("fhil", 1, 8),),
    "dequantizeLinear": (
        ("ibBn", 0, 6),
        ("fh", 0, 6),
        ("ibBn", 0, 6),
    ),
    "div": (
        ("fhi", 0, 5),
        ("fhi", 0, 5),
    ),
    "elu": (("fh", 0, 5),),
    "equal": (
        ("fhil", 0, 5),
        ("fhil", 0, 5),
    ),
    "erf": (("fh", 0, 5),),
    "exp": (("fh", 0, 8),),
    "expand": (("fhiulbB", 0, 8),),
    "floor": (("fh", 0, 8),),
    "gather": (
        ("fhilbB", 1, 8),
        ("iul", 0, 5),
    ),
    "gatherElements": (
        ("fhilbB", 1, 8),
        ("iul", 1, 5),
    ),
    "gatherND": (
        ("fhilbB", 1, 8),
        ("iul", 1, 5),
    ),
    "gelu": (("fh", 0, 8),),
    "gemm": (
        ("fh", 2, 2),
        ("fh", 2, 2),
    ),
    "greater": (
        ("fhil", 0, 5),
        ("fhil", 0, 5),
    ),
    "greaterOrEqual": (
        ("fhil", 0, 5),
        ("fhil", 0, 5),
    ),
    "hardSigmoid": (("fh", 0, 6),),
    "hardSwish": (("fh", 0, 6),),
    "identity": (("fhilbB", 0, 8),),
    "instanceNormalization": (("fh", 4, 4),),
    "isInfinite": (("fh", 0, 5),),
    "isNaN": (("fh", 0, 5),),
    "l2Pool2d": (("fh", 4, 4),),
    "layerNormalization": (("fh", 0, 6),),
    "leakyRelu": (("fh", 0, 8),),
    "lesser": (
        ("fhil", 0, 5),
        ("fhil", 0, 5),
    ),
    "lesserOrEqual": (
        ("fhil", 0, 5),
        ("fhil", 0, 5),
    ),
    "linear": (("fh", 0, 6),),
    "log": (("fh", 0, 8),),
    "logicalAnd": (
        ("B", 0, 5),
        ("B", 0, 5),
    ),
    "logicalNot": (("B", 0, 5),),
    "logicalOr": (
        ("B", 0, 5),
        ("B", 0, 5),
    ),
    "logicalXor": (
        ("B", 0, 5),
        ("B", 0, 5),
    ),
    "matmul": (
        ("fh", 2, 5),
        ("fh", 2, 5),
    ),
    "max": (
        ("fhilbB", 0, 5),
        ("fhilbB", 0, 5),
    ),
    "maxPool2d": (("fh", 4, 4),),
    "min": (
        ("fhilbB", 0, 5),
        ("fhilbB", 0, 5),
    ),
    "mul": (
        ("fhiul", 0, 6),
        ("fhiul", 0, 6),
    ),
    "neg": (("fhil", 0, 8),),
    "notEqual": (
        ("fhil", 0, 5),
        ("fhil", 0, 5),
    ),
    "pad": (("fhilB", 0, 5),),
    "pow": (
        ("fhi", 0, 5),
        ("fhi", 0, 5),
    ),
    "prelu": (
        ("fh", 0, 5),
        ("fh", 0, 5),
    ),
    "quantizeLinear": (
        ("fh", 0, 5),
        ("fh", 0, 5),
        ("ibB", 0, 5),
    ),
    "reciprocal": (("fh", 0, 5),),
    "reduceL1": (("fhi", 0, 8),),
    "reduceL2": (("fh", 0, 8),),
    "reduceLogSum": (("fh", 0, 8),),
    "reduceLogSumExp": (("fh", 0, 8),),
    "reduceMax": (("fhil", 0, 8),),
    "reduceMean": (("fh", 0, 8),),
    "reduceMin": (("fhil", 0, 8),),
    "reduceProduct": (("fhil", 0, 8),),
    "reduceSum": (("fhil", 0, 8),),
    "reduceSumSquare": (("fhi", 0, 8),),
    "relu": (("fhilb", 0, 5),),
    "resample2d": (("fh", 4, 4),),
    "reshape": (("fhiulmbBn", 0, 8),),
    "reverse": (("fhibB", 0, 8),),
    "roundEven": (("fh", 0, 8),),
    "scatterElements": (
        ("fhiulb", 1, 8),
        ("i", 1, 8),
        ("fhiulb", 1, 8),
    ),
    "scatterND": (
        ("fhiulb", 1, 8),
        ("i", 1, 5),
        ("fhiulb", 1, 8),
    ),
    "sigmoid": (("fh", 0, 6),),
    "sign": (("fhi", 0, 8),),
    "sin": (("fh", 0, 8),),
    "slice": (("fhiulbB", 0, 5),),
    "softmax": (("fh", 1, 6),),
    "softplus": (("fh", 0, 6),),
    "softsign": (("fh", 0, 6),),
    "split": (("fhilbB", 1, 8),),
    "sqrt": (("fh", 0, 8),),
    "sub": (
        ("fhil", 0, 6),
        ("fhil", 0, 6),
    ),
    "tan": (("fh", 0, 8),),
    "tanh": (("fh", 0, 8),),
    "tile": (("fhilB", 0, 8),),
    "transpose": (("fhilbB", 0, 6),),
    "triangular": (("fhiul", 2, 6),),
    "where": (
        ("B", 0, 5),
        ("fhiulb", 0, 5),
        ("fhiulb", 0, 5),
    ),
}

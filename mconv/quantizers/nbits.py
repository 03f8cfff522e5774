"""Weights of 2 to 8 bits in blocks, embeddings included, rounded by GPTQ on calibration samples;
for ONNX Runtime.

Products read their codes through MatMulNBits, tables through GatherBlockQuantized. Kernels exist
for 2, 4 and 8 bits; other widths are stored at their true size, in planes of bits that standard
operators put together into the next wider kernel's form when the model is loaded. Convolutions,
recurrent layers and weights with several kinds of readers are turned back into floats then. Scales
are bytes, with a step for each row."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv.errors import UsageError
from mconv.onnx_graph import model_files
from mconv.onnx_graph.edits import constants_to_initializers
from mconv.onnx_graph.opsets import raise_opset

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from mconv.quantizers._nbits.layers import Layer

PRECISIONS = ("int8", "int4", "int3", "int2", "mixed")
CALIBRATION = True
DOMAINS = frozenset({"", "com.microsoft"})
TOOLS = ("onnx", "onnxruntime", "numpy")
OPSET = 18  # BitwiseAnd and BitwiseOr
BITS = {"int8": 8, "int4": 4, "int3": 3, "int2": 2}
BLOCKS = {8: 128}
BLOCK = {"product": 16, "table": 32, "folded": 32}
OPTIONS = {
    "block_size": {
        "enum": [16, 32, 64, 128],
        "description": "weights that share a scale (default: 16 in products, 32 elsewhere; int8 "
        "128)",
    },
    "scheme": {
        "enum": ["asymmetric", "symmetric"],
        "default": "asymmetric",
        "description": "blocks with a zero point, or without",
    },
    "rounding": {
        "enum": ["gptq", "hqq", "nearest"],
        "default": "gptq",
        "description": "gptq: on calibration samples; hqq: without; nearest: with ranges chosen "
        "by error",
    },
    "scaling": {
        "enum": ["none", "awq"],
        "default": "none",
        "description": "awq: channels that meet large activations are scaled up before rounding; "
        "a Mul before those products",
    },
    "embeddings": {
        "type": "boolean",
        "default": True,
        "description": "quantize embedding tables too",
    },
    "accuracy_level": {
        "enum": [0, 1, 4],
        "default": 0,
        "description": "of MatMulNBits; 4 quantizes activations too, quicker and less exact",
    },
    "average_bits": {
        "type": "number",
        "minimum": 2,
        "maximum": 9,
        "default": 4.5,
        "description": "mixed: bits a weight, scales included, over all layers",
    },
    "layers": {
        "type": "object",
        "additionalProperties": {"enum": [2, 3, 4, 5, 6, 8, 32]},
        "description": "bits of the layers whose names match a glob; 32 leaves them as they are",
    },
}
CONFIG_VERSION = 1
# of encoders, tables and products together
STORED_BITS = {"int8": 8.2, "int4": 4.6, "int3": 3.7, "int2": 2.9, "mixed": 4.5}


def quantize(
    model: Path,
    out: Path,
    *,
    precision: str,
    options: dict[str, Any],
    calibration: Sequence[Mapping[str, np.ndarray]] | None,
) -> dict[str, Any]:
    """Raises UnsupportedError for a model quantized already or without weights, UsageError for
    calibration data that do not fit.

    A model of more than 1 GiB is not run: its weights are mapped from the file and rounded one at a
    time, without calibration."""
    from mconv.quantizers._nbits import layers
    from mconv.quantizers._nbits.tensors import large

    proto = load(model)
    if large(model):
        calibration = None
    found = layers.find(proto.graph, embeddings=bool(options.get("embeddings", True)))
    widths, _ = widths_of(proto, found, precision, options, calibration)
    if options.get("scaling") == "awq" and calibration:
        from mconv.quantizers._nbits import awq

        proto, count = awq.scale(
            proto, found, widths, lambda layer, bits: block_of(layer, bits, options), calibration
        )
        found = layers.find(proto.graph, embeddings=bool(options.get("embeddings", True)))
        return {
            "scaled activations": count,
            **apply(proto, found, widths, model, out, options, calibration),
        }
    return apply(proto, found, widths, model, out, options, calibration)


def load(model: Path) -> onnx.ModelProto:
    """The graph in an opset that has what is needed; of a model of more than 1 GiB without its
    external data."""
    from mconv.quantizers._nbits.tensors import large

    proto = raise_opset(model_files.load(model, data=not large(model)), OPSET)
    constants_to_initializers(proto.graph)
    return proto


def configure(
    model: Path,
    *,
    precision: str,
    options: dict[str, Any],
    calibration: Sequence[Mapping[str, np.ndarray]] | None,
) -> dict[str, Any]:
    """What :func:`quantize` would do to each layer, as mixed.json has it: a person may change the
    bits and give it back."""
    from mconv.quantizers._nbits import layers
    from mconv.quantizers._nbits.tensors import large

    proto = load(model)
    if large(model):
        calibration = None
    found = layers.find(proto.graph, embeddings=bool(options.get("embeddings", True)))
    widths, errors = widths_of(proto, found, precision, options, calibration)
    listed = {}
    for layer in found:
        about: dict[str, Any] = {
            "bits": widths[layer.name],
            "kind": layer.kind,
            "role": layer.role,
            "elements": layer.elements,
        }
        if layer.name in errors:
            about["error"] = {
                str(bits): float(f"{error:.3g}") for bits, error in errors[layer.name].items()
            }
        listed[layer.name] = about
    return {
        "version": CONFIG_VERSION,
        "quantizer": "nbits",
        "options": _stated(options),
        "layers": listed,
    }


def preview(
    model: Path,
    *,
    calibration: Sequence[Mapping[str, np.ndarray]],
    held_out: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, Any]:
    """The layers, and the cosine that rounding them to each width would leave (see
    :mod:`mconv.quantizers._nbits.preview`)."""
    from mconv.quantizers._nbits import layers
    from mconv.quantizers._nbits.preview import cosines
    from mconv.quantizers._nbits.tensors import large

    proto = load(model)
    found = layers.find(proto.graph, refuse=False)
    listed = {
        layer.name: {"kind": layer.kind, "role": layer.role, "elements": layer.elements}
        for layer in found
    }
    if not found or large(model):
        return {"layers": listed}
    return {
        "layers": listed,
        "cosine": cosines(
            proto, found, BITS, lambda layer, bits: block_of(layer, bits, {}), calibration, held_out
        ),
    }


def _stated(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        k: v
        for k, v in options.items()
        if k in OPTIONS and k not in ("layers", "average_bits") and v is not None
    }


def widths_of(
    proto: onnx.ModelProto,
    found: Sequence[Layer],
    precision: str,
    options: Mapping[str, Any],
    calibration: Sequence[Mapping[str, np.ndarray]] | None,
) -> tuple[dict[str, int], dict[str, dict[int, float]]]:
    """(bits by layer, measured errors by layer and width). Raises UsageError for a glob in
    ``layers`` that matches none."""
    from mconv.quantizers._nbits import allocate
    from mconv.quantizers._nbits.activations import Activations

    errors: dict[str, dict[int, float]] = {}
    given = dict(options.get("layers") or {})
    if precision != "mixed":
        widths = {layer.name: BITS[precision] for layer in found}
    elif all(layer.name in given for layer in found):
        widths = {}
    elif calibration:

        def block(layer: Layer, bits: int) -> int:
            return block_of(layer, bits, options)

        errors = allocate.measured(Activations(proto, found, calibration), found, block)
        budget = float(options.get("average_bits", 4.5)) * sum(layer.elements for layer in found)
        widths = allocate.within(found, errors, block, budget)
    else:
        widths = allocate.recipe(found, float(options.get("average_bits", 4.5)))
    for glob, bits in given.items():
        matched = [
            layer.name
            for layer in found
            if fnmatch.fnmatchcase(layer.name, glob) or layer.name == glob
        ]
        if not matched:
            names = ", ".join(layer.name for layer in found[:10])
            raise UsageError(
                f"no layer matches {glob!r}", hint=f"layers are, among others: {names}"
            )
        widths |= dict.fromkeys(matched, int(bits))
    return widths, errors


def apply(
    proto: onnx.ModelProto,
    found: Sequence[Layer],
    widths: Mapping[str, int],
    model: Path,
    out: Path,
    options: Mapping[str, Any],
    calibration: Sequence[Mapping[str, np.ndarray]] | None,
) -> dict[str, Any]:
    """Store each layer in its width, write the model, and say what was done. Layers of 16 and more
    bits stay as they are."""
    from mconv.quantizers._nbits.rounding import Rounder
    from mconv.quantizers._nbits.surgery import Surgeon
    from mconv.quantizers._nbits.tensors import Tensors, large

    tensors = Tensors(proto.graph, model.parent)
    chosen = [layer for layer in found if widths.get(layer.name, 32) <= 8]
    rounder = Rounder(proto, chosen, options, calibration, tensors)
    surgeon = Surgeon(
        proto.graph, out.with_name(out.name + model_files.DATA_SUFFIX) if large(model) else None
    )
    level = int(options.get("accuracy_level", 0))
    for layer in rounder.order():
        bits = widths[layer.name]
        codes, grid = rounder.round(layer, bits, block_of(layer, bits, options))
        surgeon.put(layer, codes, grid, accuracy_level=level)
    tensors.load_rest(surgeon.gone)
    surgeon.finish(proto)
    model_files.save(proto, out)
    counts = {f"{kind} of {bits} bits": count for (kind, bits), count in _counts(chosen, widths)}
    return {**rounder.notes(), **counts, "layers": rounder.errors}


def block_of(layer: Layer, bits: int, options: Mapping[str, Any]) -> int:
    """Block size of a layer: as asked for, halved down to 16 until it divides a table's row."""
    size = int(options.get("block_size") or BLOCKS.get(bits, BLOCK[layer.kind]))
    while layer.kind == "table" and size > 16 and layer.columns % size:
        size //= 2
    return size


def _counts(found: Sequence[Layer], widths: Mapping[str, int]) -> list[tuple[tuple[str, int], int]]:
    words = {"product": "products", "table": "tables", "folded": "other weights"}
    counts: dict[tuple[str, int], int] = {}
    for layer in found:
        key = (words[layer.kind], widths[layer.name])
        counts[key] = counts.get(key, 0) + 1
    return sorted(counts.items())

"""Weights of 2 to 8 bits in blocks, embeddings included, rounded by GPTQ on calibration samples;
for ONNX Runtime.

Products read their codes through MatMulNBits, tables through GatherBlockQuantized. Kernels exist
for 2, 4 and 8 bits; other widths are stored at their true size, in planes of bits that standard
operators put together into the next wider kernel's form when the model is loaded. Convolutions,
recurrent layers and weights with several kinds of readers are turned back into floats then. Scales
are bytes, with a step for each row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from typing_extensions import NotRequired

from mconv.onnx_graph import model_files

if TYPE_CHECKING:
    import onnx_ir as ir

    from mconv.contracts import Feed, MixedConfig, MixedLayer, Options, Remarks
    from mconv.quantizers._nbits.layers import Layer
    from mconv.quantizers._nbits.settings import NbitsOptions, Settings
    from mconv.quantizers._nbits.storage import PackedTensors
    from mconv.quantizers._nbits.widths import Widths

PRECISIONS = ("int8", "int4", "int3", "int2", "mixed")
CALIBRATION = True
DOMAINS = frozenset({"", "com.microsoft"})
TOOLS = ("onnx", "onnx-ir", "onnxruntime", "numpy")
BITS = {"int8": 8, "int4": 4, "int3": 3, "int2": 2}
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
OWN_KEYS = ("layers", "average_bits")  # what mixed.json says of layers takes their place
CONFIG_VERSION = 1
WORDS = {"product": "products", "table": "tables", "folded": "other weights"}
# of encoders, tables and products together
STORED_BITS = {"int8": 8.2, "int4": 4.6, "int3": 3.7, "int2": 2.9, "mixed": 4.5}


class PreviewedLayer(TypedDict):
    """A layer as ``preview`` describes it.

    Attributes:
        kind: the kind of layer.
        role: what it does in the model.
        elements: the number of its weights.
    """

    kind: str
    role: str
    elements: int


class PreviewAnswer(TypedDict):
    """What ``preview`` says, as :class:`mconv.engine.advisor.Preview` reads it.

    Attributes:
        layers: the layers by name.
        cosine: the cosine that rounding all of them to a precision would leave.
    """

    layers: dict[str, PreviewedLayer]
    cosine: NotRequired[dict[str, float]]


def quantize(
    model: Path,
    out: Path,
    *,
    precision: str,
    options: NbitsOptions,
    calibration: Sequence[Feed] | None,
) -> Remarks:
    """Write ``out`` with weights in few bits, rounded by the calibration data where the options say
    so.

    A model of more than 1 GiB is not run: its weights are mapped from the file and rounded one at a
    time, without calibration.

    Raises UnsupportedError for a model quantized already or without weights, UsageError for
    calibration data that do not fit.
    """
    from mconv.quantizers._nbits.awq import scale_channels
    from mconv.quantizers._nbits.layers import find_layers
    from mconv.quantizers._nbits.loading import load_model
    from mconv.quantizers._nbits.settings import Settings
    from mconv.quantizers._nbits.storage import PackedTensors
    from mconv.quantizers._nbits.widths import choose_widths

    settings = Settings.of(options)
    loaded = load_model(model)
    feeds = None if loaded.is_large else calibration
    layers = find_layers(loaded.model, embeddings=settings.embeddings)
    widths = choose_widths(loaded.model, layers, BITS.get(precision), settings, feeds)
    remarks: Remarks = {}
    if settings.scaling == "awq" and feeds:
        remarks["scaled activations"] = scale_channels(
            loaded.model, layers, widths.bits, settings.block_of, feeds
        )
        layers = find_layers(loaded.model, embeddings=settings.embeddings)
    data = out.with_name(out.name + model_files.DATA_SUFFIX) if loaded.is_large else None
    remarks |= _store_layers(loaded.model, layers, widths, settings, feeds, PackedTensors(data))
    model_files.save_model(loaded.model, out)
    return remarks


def _store_layers(
    model: ir.Model,
    layers: Sequence[Layer],
    widths: Widths,
    settings: Settings,
    feeds: Sequence[Feed] | None,
    tensors: PackedTensors,
) -> Remarks:
    """Store each layer in its width, and say what was done. Layers of 16 and more bits stay as they
    are."""
    from mconv.quantizers._nbits.replacement import replace_layer
    from mconv.quantizers._nbits.rounding import Rounder

    narrow = [layer for layer in layers if widths.bits.get(layer.name, 32) <= 8]
    rounder = Rounder(model, narrow, settings, feeds)
    for rounded in rounder.round_all(widths.bits):
        replace_layer(model, rounded, tensors, accuracy_level=settings.accuracy_level)
    counts = Counter((WORDS[layer.kind], widths.bits[layer.name]) for layer in narrow)
    stored = {f"{kind} of {bits} bits": count for (kind, bits), count in sorted(counts.items())}
    return {**rounder.count_methods(), **stored, "layers": rounder.noise}


def configure(
    model: Path,
    *,
    precision: str,
    options: NbitsOptions,
    calibration: Sequence[Feed] | None,
) -> MixedConfig:
    """Return what :func:`quantize` would do to each layer, as mixed.json has it: a person may
    change the bits and give it back."""
    from mconv.quantizers._nbits.layers import find_layers
    from mconv.quantizers._nbits.loading import load_model
    from mconv.quantizers._nbits.settings import Settings
    from mconv.quantizers._nbits.widths import choose_widths

    settings = Settings.of(options)
    loaded = load_model(model)
    feeds = None if loaded.is_large else calibration
    layers = find_layers(loaded.model, embeddings=settings.embeddings)
    widths = choose_widths(loaded.model, layers, BITS.get(precision), settings, feeds)
    return {
        "version": CONFIG_VERSION,
        "quantizer": "nbits",
        "options": _chosen_options(options),
        "layers": {layer.name: _configure_layer(layer, widths) for layer in layers},
    }


def _configure_layer(layer: Layer, widths: Widths) -> MixedLayer:
    """Return a layer as mixed.json has it, errors to three digits."""
    configured: MixedLayer = {
        "bits": widths.bits[layer.name],
        "kind": layer.kind,
        "role": layer.role,
        "elements": layer.elements,
    }
    if layer.name in widths.errors:
        errors = widths.errors[layer.name]
        configured["error"] = {str(bits): float(f"{errors[bits]:.3g}") for bits in errors}
    return configured


def _chosen_options(options: Mapping[str, object]) -> Options:
    """Return the options that were given, but for those that say the bits of layers."""
    return {
        name: value
        for name, value in options.items()
        if name in OPTIONS and name not in OWN_KEYS and value is not None
    }


def preview(model: Path, *, calibration: Sequence[Feed], held_out: Sequence[Feed]) -> PreviewAnswer:
    """Return the layers, and the cosine that rounding them to each width would leave (see
    :mod:`mconv.quantizers._nbits.preview`); a model of more than 1 GiB is not run."""
    from mconv.quantizers._nbits.activations import Activations
    from mconv.quantizers._nbits.layers import find_layers
    from mconv.quantizers._nbits.loading import load_model
    from mconv.quantizers._nbits.preview import measure_cosines
    from mconv.quantizers._nbits.settings import Settings

    loaded = load_model(model)
    layers = find_layers(loaded.model, refuse=False)
    answer: PreviewAnswer = {
        "layers": {
            layer.name: {"kind": layer.kind, "role": layer.role, "elements": layer.elements}
            for layer in layers
        }
    }
    if layers and not loaded.is_large:
        activations = Activations(loaded.model, layers, calibration)
        answer["cosine"] = measure_cosines(activations, layers, BITS, Settings().block_of, held_out)
    return answer

"""Makes the integer precisions of OpenVINO with NNCF: weights alone, or weights and activations
with calibration."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from mconv.errors import UnsupportedError, UsageError, one_line
from mconv.onnx_graph.quantized import refuse_operators
from mconv.targets import _nncf_scope
from mconv.values import ModelInfo

if TYPE_CHECKING:
    import openvino

    from mconv.targets._nncf_scope import Feed


class IntegerOptions(TypedDict, total=False):
    """The options of the integer precisions; ``OPTIONS`` says what each does."""

    scheme: str
    group_size: int
    ratio: float
    all_layers: bool
    awq: bool
    scale_estimation: bool
    gptq: bool
    preset: str
    smooth_alpha: float
    max_noise: float


DEFAULTS: IntegerOptions = {
    "scheme": "asymmetric",
    "group_size": 32,
    "ratio": 1.0,
    "all_layers": True,
    "awq": False,
    "scale_estimation": False,
    "gptq": False,
    "smooth_alpha": 0.5,
    "max_noise": 0.003,
}
OPTIONS: dict[str, dict[str, object]] = {
    "scheme": {
        "enum": ["asymmetric", "symmetric"],
        "default": DEFAULTS["scheme"],
        "description": "int8 or int4 weights with a zero point, or around zero",
    },
    "group_size": {
        "type": "integer",
        "minimum": 1,
        "default": DEFAULTS["group_size"],
        "description": "int4: weights that share a scale; halved where it does not divide the "
        "channels",
    },
    "ratio": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": DEFAULTS["ratio"],
        "description": "int4: share of the weights in 4 bits, the least sensitive; the others get "
        "8",
    },
    "all_layers": {
        "type": "boolean",
        "default": DEFAULTS["all_layers"],
        "description": "int4: embeddings and the last layer as well",
    },
    "awq": {
        "type": "boolean",
        "default": DEFAULTS["awq"],
        "description": "int4: scale salient channels by activations (AWQ)",
    },
    "scale_estimation": {
        "type": "boolean",
        "default": DEFAULTS["scale_estimation"],
        "description": "int4: choose scales by the error on calibration samples",
    },
    "gptq": {
        "type": "boolean",
        "default": DEFAULTS["gptq"],
        "description": "int4: GPTQ on calibration samples; best, and takes longest",
    },
    "preset": {
        "enum": ["performance", "mixed"],
        "description": "int8-static: activations around zero, or (mixed; for transformers the "
        "default) with a zero point",
    },
    "smooth_alpha": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": DEFAULTS["smooth_alpha"],
        "description": "int8-static of transformers: how much of an activation's outliers goes "
        "into the weights (SmoothQuant)",
    },
    "max_noise": {
        "type": "number",
        "minimum": 0,
        "default": DEFAULTS["max_noise"],
        "description": "int8-static: share of an output's energy that may become noise; the worst "
        "layers stay in float to keep it",
    },
}
FOUR_BITS, EIGHT_BITS = ("i4", "u4"), ("i8", "u8")  # OpenVINO's names of types
NO_WEIGHTS = (
    "the model has no weights to quantize: NNCF quantizes those of matrix products, "
    "convolutions and embeddings"
)
# what may stand between a softmax and the product of its attention, and how far away that may be
ATTENTION_PATH = ("Reshape", "Transpose", "Unsqueeze", "Squeeze", "Convert", "Select", "Multiply")
ATTENTION_REACH = 20


def check_model(info: ModelInfo, feeds: Sequence[Feed] | None) -> None:
    """Check that an ONNX graph can be quantized with these calibration feeds.

    Raises UnsupportedError where it is quantized already, UsageError where a feed does not fit its
    inputs.
    """
    refuse_operators(info.operators)
    for index, feed in enumerate(feeds or ()):
        _check_feed(info, feed, index)


def _check_feed(info: ModelInfo, feed: Feed, index: int) -> None:
    if feed.keys() != {spec.name for spec in info.inputs}:
        held = ", ".join(sorted(feed)) or "nothing"
        taken = ", ".join(spec.name for spec in info.inputs)
        raise UsageError(f"calibration sample {index} holds {held}; the model takes {taken}")
    for spec in info.inputs:
        array = feed[spec.name]
        if not spec.is_filled_by(str(array.dtype), array.shape):
            raise UsageError(
                f"calibration sample {index}: {spec.name} is {array.dtype} {list(array.shape)}, "
                f"the model takes {spec.dtype} {list(spec.shape)}"
            )


def quantize_network(
    network: openvino.Model,
    precision: str,
    options: IntegerOptions,
    feeds: Sequence[Feed] | None,
) -> openvino.Model:
    """Return the network in ``precision``: ``int8``, ``int4`` or ``int8-static``.

    Raises UnsupportedError where NNCF refuses, or has nothing to quantize; UsageError where
    calibration feeds are needed and there are none.
    """
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    settings = DEFAULTS | options
    bytes_before = _count_code_bytes(network, (*FOUR_BITS, *EIGHT_BITS))
    try:
        if precision == "int8-static":
            network = _quantize_activations(network, settings, _require_feeds(feeds, precision))
        elif precision == "int8":
            network = _compress_to_eight_bits(network, settings)
        else:
            network = _compress_to_four_bits(network, settings, feeds)
    except (
        nncf.InternalError,
        nncf.UnsupportedModelError,
        nncf.ValidationError,
        RuntimeError,
    ) as problem:
        raise UnsupportedError(
            f"NNCF cannot quantize the model: {one_line(problem, 500)}"
        ) from problem
    if _count_code_bytes(network, (*FOUR_BITS, *EIGHT_BITS)) <= bytes_before:
        raise UnsupportedError(NO_WEIGHTS, hint="deliver it as fp16")
    if precision == "int4" and not _count_code_bytes(network, FOUR_BITS):
        raise UnsupportedError(
            "no weight came out in 4 bits: NNCF keeps those of convolutions, and ragged ones, in 8",
            hint="deliver it as int8",
        )
    return network


def _require_feeds(feeds: Sequence[Feed] | None, purpose: str) -> Sequence[Feed]:
    """Return the calibration feeds. Raises UsageError where there are none."""
    if not feeds:
        raise UsageError(
            f"{purpose} needs calibration samples; there are none",
            hint="set `calibration: {data: ….npz}`",
        )
    return feeds


def _count_code_bytes(network: openvino.Model, types: Sequence[str]) -> int:
    """Return the bytes of the constants of ``types`` that have two axes or more (a zero point or a
    scalar has fewer)."""
    count = 0
    for op in network.get_ordered_ops():
        if op.get_type_name() != "Constant" or len(op.get_output_shape(0)) < 2:
            continue
        if op.get_element_type().get_type_name() in types:
            count += int(op.get_byte_size())
    return count


def _compress_to_eight_bits(network: openvino.Model, settings: IntegerOptions) -> openvino.Model:
    """Store weights as 8-bit codes, computed in float."""
    import nncf

    symmetric = settings["scheme"] == "symmetric"
    mode = nncf.CompressWeightsMode.INT8_SYM if symmetric else nncf.CompressWeightsMode.INT8_ASYM
    return nncf.compress_weights(network, mode=mode)


def _compress_to_four_bits(
    network: openvino.Model, settings: IntegerOptions, feeds: Sequence[Feed] | None
) -> openvino.Model:
    """Store weights as 4-bit codes, computed in float. Raises UsageError where an option needs
    calibration feeds and there are none."""
    import nncf
    from nncf.quantization.advanced_parameters import (
        AdvancedCompressionParameters,
        GroupSizeFallbackMode,
    )

    symmetric = settings["scheme"] == "symmetric"
    dataset = None
    if learned := _list_learned(settings):
        purpose = f"int4 with {', '.join(learned)}"
        dataset = nncf.Dataset(list(_require_feeds(feeds, purpose)))
    return nncf.compress_weights(
        network,
        mode=nncf.CompressWeightsMode.INT4_SYM if symmetric else nncf.CompressWeightsMode.INT4_ASYM,
        ratio=float(settings["ratio"]),
        group_size=settings["group_size"],
        all_layers=settings["all_layers"],
        dataset=dataset,
        awq=settings["awq"] or None,
        scale_estimation=settings["scale_estimation"] or None,
        gptq=settings["gptq"] or None,
        advanced_parameters=AdvancedCompressionParameters(
            group_size_fallback_mode=GroupSizeFallbackMode.ADJUST, min_adjusted_group_size=8
        ),
    )


def _list_learned(settings: IntegerOptions) -> list[str]:
    """Return the options in force that look at calibration feeds."""
    learned = []
    if settings["awq"]:
        learned.append("awq")
    if settings["scale_estimation"]:
        learned.append("scale_estimation")
    if settings["gptq"]:
        learned.append("gptq")
    if settings["ratio"] < 1:
        learned.append("ratio")
    return learned


def _quantize_activations(
    network: openvino.Model, settings: IntegerOptions, feeds: Sequence[Feed]
) -> openvino.Model:
    """Compute in 8 bits, weights and activations, but for the operators that would add too much
    noise; of those the weights are stored in 8 bits."""
    import nncf
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
    )

    dataset = nncf.Dataset(list(feeds))
    preset = nncf.QuantizationPreset(settings["preset"]) if "preset" in settings else None
    model_type = nncf.ModelType.TRANSFORMER if _has_attention(network) else None
    alphas = AdvancedSmoothQuantParameters(matmul=float(settings["smooth_alpha"]))

    def quantize(left_in_float: list[str]) -> openvino.Model:
        quantized = nncf.quantize(
            network.clone(),
            dataset,
            preset=preset,
            subset_size=len(feeds),
            model_type=model_type,
            ignored_scope=nncf.IgnoredScope(names=left_in_float) if left_in_float else None,
            advanced_parameters=AdvancedQuantizationParameters(smooth_quant_alphas=alphas),
        )
        if not left_in_float:
            return quantized
        return nncf.compress_weights(quantized, mode=nncf.CompressWeightsMode.INT8_ASYM)

    budget = float(settings["max_noise"])
    return _nncf_scope.quantize_within_budget(network, feeds, budget, quantize)[0]


def _has_attention(network: openvino.Model) -> bool:
    """Whether a softmax feeds a product of two activations, which NNCF's settings for transformers
    are made for."""
    for op in network.get_ordered_ops():
        if op.get_type_name() == "ScaledDotProductAttention":
            return True
        if op.get_type_name() == "Softmax" and _feeds_product(op):
            return True
    return False


def _feeds_product(softmax: openvino.Node) -> bool:
    """Whether the output of a softmax reaches a product with another activation, with at most
    reshapes between."""
    ports = list(softmax.output(0).get_target_inputs())
    visited = 0
    while ports and visited < ATTENTION_REACH:
        reader = ports.pop().get_node()
        visited += 1
        if reader.get_type_name() == "MatMul" and not _has_constant_input(reader):
            return True
        if reader.get_type_name() in ATTENTION_PATH:
            ports += list(reader.output(0).get_target_inputs())
    return False


def _has_constant_input(op: openvino.Node) -> bool:
    return any(
        port.get_source_output().get_node().get_type_name() == "Constant" for port in op.inputs()
    )

"""Integer precisions of OpenVINO, by NNCF: weights alone, or weights and activations with
calibration."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mconv.errors import UnsupportedError, UsageError
from mconv.targets import _nncf_choice
from mconv.values import ModelInfo

if TYPE_CHECKING:
    import numpy as np

    Feed = Mapping[str, np.ndarray]

OPTIONS: dict[str, Any] = {
    "group_size": {
        "type": "integer",
        "minimum": 1,
        "default": 32,
        "description": "int4: weights that share a scale; halved where it does not divide the "
        "channels",
    },
    "ratio": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": 1.0,
        "description": "int4: share of the weights in 4 bits, the least sensitive; the others get "
        "8",
    },
    "all_layers": {
        "type": "boolean",
        "default": True,
        "description": "int4: embeddings and the last layer as well",
    },
    "awq": {
        "type": "boolean",
        "default": False,
        "description": "int4: scale salient channels by activations (AWQ)",
    },
    "scale_estimation": {
        "type": "boolean",
        "default": False,
        "description": "int4: choose scales by the error on calibration samples",
    },
    "gptq": {
        "type": "boolean",
        "default": False,
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
        "default": 0.5,
        "description": "int8-static of transformers: how much of an activation's outliers goes "
        "into the weights (SmoothQuant)",
    },
    "max_noise": {
        "type": "number",
        "minimum": 0,
        "default": 0.003,
        "description": "int8-static: share of an output's energy that may become noise; the worst "
        "layers stay in float to keep it",
    },
}
FOUR, EIGHT = ("i4", "u4"), ("i8", "u8")
QUANTIZED = (
    "QuantizeLinear",
    "DequantizeLinear",
    "Integer",
    "QLinear",
    "QGemm",
    "NBits",
    "BlockQuantized",
    "FakeQuantize",
)
NO_WEIGHTS = (
    "the model has no weights to quantize: NNCF quantizes those of matrix products, "
    "convolutions and embeddings"
)


def check(info: ModelInfo, feeds: Sequence[Feed] | None) -> None:
    """Refuse a graph that is quantized already, and calibration feeds that do not fit its
    inputs."""
    present = [op for op in info.operators if any(word in op for word in QUANTIZED)]
    if present:
        raise UnsupportedError(
            f"the model is quantized already: it has {', '.join(present)}",
            hint="start from the float model",
        )
    for index, feed in enumerate(feeds or ()):
        if feed.keys() != {spec.name for spec in info.inputs}:
            held = ", ".join(sorted(feed)) or "nothing"
            taken = ", ".join(spec.name for spec in info.inputs)
            raise UsageError(f"calibration sample {index} holds {held}; the model takes {taken}")
        for spec in info.inputs:
            array = feed[spec.name]
            fits = len(array.shape) == len(spec.shape) and all(
                isinstance(want, str) or want == got
                for want, got in zip(spec.shape, array.shape, strict=True)
            )
            if not fits or str(array.dtype) != spec.dtype:
                raise UsageError(
                    f"calibration sample {index}: {spec.name} is {array.dtype} "
                    f"{list(array.shape)}, "
                    f"the model takes {spec.dtype} {list(spec.shape)}"
                )


def lower(
    network: Any, precision: str, options: Mapping[str, Any], feeds: Sequence[Feed] | None
) -> Any:
    """The network in ``precision``. Raises UnsupportedError where NNCF refuses, or found nothing to
    quantize."""
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    options = {
        name: schema["default"] for name, schema in OPTIONS.items() if "default" in schema
    } | dict(options)
    before = _codes(network)
    try:
        if precision == "int8-static":
            network = _static(network, options, _needed(feeds, precision))
        else:
            network = _weights(network, precision, options, feeds)
    except (
        nncf.InternalError,
        nncf.UnsupportedModelError,
        nncf.ValidationError,
        RuntimeError,
    ) as problem:
        raise UnsupportedError(
            f"NNCF cannot quantize the model: {' '.join(str(problem).split())[:500]}"
        ) from problem
    if _codes(network) <= before:
        raise UnsupportedError(NO_WEIGHTS, hint="deliver it as fp16")
    if precision == "int4" and not _codes(network, FOUR):
        raise UnsupportedError(
            "no weight came out in 4 bits: NNCF keeps those of convolutions, and ragged ones, in 8",
            hint="deliver it as int8",
        )
    return network


def _needed(feeds: Sequence[Feed] | None, what: str) -> Sequence[Feed]:
    if not feeds:
        raise UsageError(
            f"{what} needs calibration samples; there are none",
            hint="set `calibration: {data: ….npz}`",
        )
    return feeds


def _codes(network: Any, kinds: Sequence[str] = (*FOUR, *EIGHT)) -> int:
    """Bytes of codes of ``kinds`` in tensors of two axes or more (a zero point or a scalar is
    none)."""
    constants = [op for op in network.get_ordered_ops() if op.get_type_name() == "Constant"]
    coded = [
        op
        for op in constants
        if op.get_element_type().get_type_name() in kinds and len(op.get_output_shape(0)) > 1
    ]
    return sum(int(op.get_byte_size()) for op in coded)


def _weights(
    network: Any, precision: str, options: Mapping[str, Any], feeds: Sequence[Feed] | None
) -> Any:
    """Weights as codes, computed in float."""
    import nncf
    from nncf.quantization.advanced_parameters import (
        AdvancedCompressionParameters,
        GroupSizeFallbackMode,
    )

    symmetric = options.get("scheme", "asymmetric") == "symmetric"
    if precision == "int8":
        mode = (
            nncf.CompressWeightsMode.INT8_SYM if symmetric else nncf.CompressWeightsMode.INT8_ASYM
        )
        return nncf.compress_weights(network, mode=mode)
    learned = [name for name in ("awq", "scale_estimation", "gptq") if options[name]]
    if options["ratio"] < 1:
        learned.append("ratio")
    return nncf.compress_weights(
        network,
        mode=nncf.CompressWeightsMode.INT4_SYM if symmetric else nncf.CompressWeightsMode.INT4_ASYM,
        ratio=float(options["ratio"]),
        group_size=options["group_size"],
        all_layers=options["all_layers"],
        dataset=nncf.Dataset(list(_needed(feeds, f"int4 with {', '.join(learned)}")))
        if learned
        else None,
        awq=options["awq"] or None,
        scale_estimation=options["scale_estimation"] or None,
        gptq=options["gptq"] or None,
        advanced_parameters=AdvancedCompressionParameters(
            group_size_fallback_mode=GroupSizeFallbackMode.ADJUST, min_adjusted_group_size=8
        ),
    )


def _static(network: Any, options: Mapping[str, Any], feeds: Sequence[Feed]) -> Any:
    """Weights and activations on 8 bits."""
    import nncf
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
    )

    dataset = nncf.Dataset(list(feeds))
    settings: dict[str, Any] = {
        "preset": nncf.QuantizationPreset(options["preset"]) if "preset" in options else None,
        "subset_size": len(feeds),
        "model_type": nncf.ModelType.TRANSFORMER if _attention(network) else None,
    }
    alphas = AdvancedSmoothQuantParameters(matmul=float(options["smooth_alpha"]))

    def quantize(left: list[str]) -> Any:
        made = nncf.quantize(
            network.clone(),
            dataset,
            ignored_scope=nncf.IgnoredScope(names=left) if left else None,
            advanced_parameters=AdvancedQuantizationParameters(smooth_quant_alphas=alphas),
            **settings,
        )
        return (
            nncf.compress_weights(made, mode=nncf.CompressWeightsMode.INT8_ASYM) if left else made
        )

    return _nncf_choice.choose(network, feeds, float(options["max_noise"]), quantize)[0]


def _attention(network: Any) -> bool:
    """Whether a softmax feeds a product of two activations, which NNCF's settings for transformers
    are made for."""
    for op in network.get_ordered_ops():
        if op.get_type_name() == "ScaledDotProductAttention":
            return True
        if op.get_type_name() == "Softmax":
            todo, seen = list(op.output(0).get_target_inputs()), 0
            while todo and seen < 20:  # reshapes may stand between
                reader = todo.pop().get_node()
                seen += 1
                constant = any(
                    port.get_source_output().get_node().get_type_name() == "Constant"
                    for port in reader.inputs()
                )
                if reader.get_type_name() == "MatMul" and not constant:
                    return True
                if reader.get_type_name() in (
                    "Reshape",
                    "Transpose",
                    "Unsqueeze",
                    "Squeeze",
                    "Convert",
                    "Select",
                    "Multiply",
                ):
                    todo += list(reader.output(0).get_target_inputs())
    return False

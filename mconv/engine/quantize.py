"""Quantization of one ONNX file, and the settings of each of its layers for a person to change."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mconv import registry, samples
from mconv.contracts import MixedConfig, Options, list_defaults
from mconv.errors import UsageError, describe_unreadable
from mconv.manifest import options as manifest_options
from mconv.manifest.yaml import describe_unknown
from mconv.onnx_graph import model_info
from mconv.proof.user_samples import read_samples
from mconv.results import output as results_output
from mconv.values import LayerError, Quantized

if TYPE_CHECKING:
    import numpy as np

TARGET = "onnx"
DRAWN = 64  # calibration samples drawn where no file is given
NOTE = (
    "no calibration samples were given: random inputs are drawn, and rounding is the worse for it"
)
Feeds = Sequence[Mapping[str, "np.ndarray"]]


def quantize(
    model: Path,
    precision: str | None,
    *,
    out: Path | None = None,
    method: str | None = None,
    options: Options | None = None,
    calibration: Path | Feeds | None = None,
    config: MixedConfig | None = None,
) -> Quantized:
    """Write ``model`` in ``precision`` and return what was done.

    ``out`` is a file or a folder; by default the result lies beside the model. ``config`` is the
    content of a mixed.json. ``calibration`` is an ``.npz`` file or feeds (input name → array).

    Raises UsageError where there is no such file, or an option, a method or a precision that does
    not exist; SourceError for a model that cannot be read; UnsupportedError where the quantizer
    cannot do it.
    """
    quantizer, precision, settings = _read_settings(model, precision, method, options, config)
    out = out or model.with_name(f"{model.stem}-{precision}.onnx")
    out = out / model.name if out.is_dir() or out.suffix != ".onnx" else out
    if out.resolve() == model.resolve():
        raise UsageError("the result would overwrite the model", hint="name another file with -o")
    results_output.check_writable(out.parent)
    feeds, notes = _make_feeds(model, quantizer, calibration)
    out.parent.mkdir(parents=True, exist_ok=True)
    # renamed when whole
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".mconv-") as folder:
        staged = Path(folder) / out.name
        remarks = quantizer.quantize(
            model, staged, precision=precision, options=settings, calibration=feeds
        )
        for path in sorted(Path(folder).iterdir()):
            path.replace(out.parent / path.name)
    layers = msgspec.convert(remarks.pop("layers", ()), tuple[LayerError, ...])
    notes += [f"{key}: {value}" for key, value in sorted(remarks.items())]
    return Quantized(
        path=str(out),
        precision=precision,
        quantizer=quantizer.name,
        size_bytes=_measure_size(out),
        source_bytes=_measure_size(model),
        notes=tuple(notes),
        layers=layers,
    )


def configure(
    model: Path,
    precision: str | None,
    *,
    method: str | None = None,
    options: Options | None = None,
    calibration: Path | Feeds | None = None,
    config: MixedConfig | None = None,
) -> MixedConfig:
    """Return the mixed.json of what :func:`quantize` would do.

    Raises what :func:`quantize` raises, and UsageError where the quantizer has no settings for
    single layers.
    """
    quantizer, precision, settings = _read_settings(model, precision, method, options, config)
    if quantizer.configure is None:
        raise UsageError(
            f"{quantizer.name} has no settings a layer",
            hint="use a precision of nbits: int4, int3, int2, mixed",
        )
    feeds, _ = _make_feeds(model, quantizer, calibration)
    return quantizer.configure(model, precision=precision, options=settings, calibration=feeds)


def _read_settings(
    model: Path,
    precision: str | None,
    method: str | None,
    options: Options | None,
    config: MixedConfig | None,
) -> tuple[registry.Quantizer, str, dict[str, object]]:
    """Return the quantizer, the precision and the options that are meant. Raises UsageError."""
    if not model.is_file():
        raise UsageError(f"there is no file {str(model)!r}")
    precision = precision or ("mixed" if config else None)
    if precision is None:
        raise UsageError("say what to quantize to", hint="--precision int4, or --config mixed.json")
    target = registry.targets()[TARGET]
    if precision not in target.precisions:
        message, hint = describe_unknown(precision, "precision", target.precisions)
        raise UsageError(message, hint=hint)
    method = method or (config["quantizer"] if config else None)
    if method is not None and method not in registry.quantizers():
        message, hint = describe_unknown(method, "quantizer", registry.quantizers())
        raise UsageError(message, hint=hint)
    quantizer = registry.find_quantizer(target, precision, method)
    if quantizer is None or precision not in quantizer.precisions:
        raise UsageError(f"{method or TARGET} does not make {precision}")
    return quantizer, precision, _merge_options(quantizer, options or {}, config)


def _merge_options(
    quantizer: registry.Quantizer, options: Options, config: MixedConfig | None
) -> dict[str, object]:
    """Return the options: those of the call over those of the config over the defaults.

    Raises UsageError for one that does not fit its schema.
    """
    values = list_defaults(quantizer.options)
    if config:
        values |= config.get("options", {})
        values["layers"] = {name: layer["bits"] for name, layer in config["layers"].items()}
    for name, value in options.items():
        if name not in quantizer.options:
            raise UsageError(
                f"{quantizer.name} has no option {name!r}",
                hint=f"it has: {', '.join(quantizer.options) or 'none'}",
            )
        if wrong := manifest_options.find_option_problem(value, quantizer.options[name]):
            raise UsageError(f"{name} {wrong}, not {value!r}")
        values[name] = value
    return values


def _make_feeds(
    model: Path, quantizer: registry.Quantizer, calibration: Path | Feeds | None
) -> tuple[Feeds | None, list[str]]:
    """Return calibration feeds and remarks on them.

    Feeds that are not given are drawn from the shapes of the inputs, which a remark says.
    """
    if not quantizer.calibration:
        return None, []
    inputs = model_info.describe(model).inputs
    if isinstance(calibration, Path):
        if not calibration.exists():
            raise UsageError(f"there is no file {str(calibration)!r}")
        return read_samples([calibration], inputs, ()).feeds, []
    if calibration is not None:
        return calibration, []
    return samples.draw_feeds(inputs, count=DRAWN, seed=samples.SEED + 1, dims={}), [NOTE]


def read_config(path: Path) -> MixedConfig:
    """Return the content of a mixed.json.

    Raises UsageError for what breaks its schema (``mconv schema mixed``).
    """
    from mconv.manifest import schema as manifest_schema

    hint = "`mconv schema mixed` shows what it must look like"
    try:
        config: MixedConfig = json.loads(path.read_bytes())
    except OSError as problem:
        raise UsageError(describe_unreadable(path, problem)) from problem
    except ValueError as problem:
        raise UsageError(f"{path} is not a mixed.json: {problem}", hint=hint) from problem
    if wrong := manifest_schema.find_mixed_problem(config):
        raise UsageError(f"{path} is not a mixed.json: {wrong}", hint=hint)
    return config


def _measure_size(path: Path) -> int:
    """Return the bytes of a model's file and of the external data beside it."""
    return sum(p.stat().st_size for p in path.parent.glob(f"{path.name}*") if p.is_file())

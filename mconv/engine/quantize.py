"""One ONNX file quantized, or what would be done to each of its layers, for a person to change."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mconv import registry, samples
from mconv.errors import SourceError, UsageError
from mconv.manifest import options as manifest_options
from mconv.onnx_graph import model_info
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
    options: Mapping[str, Any] | None = None,
    calibration: Path | Feeds | None = None,
    config: Mapping[str, Any] | None = None,
) -> Quantized:
    """Write ``model`` in ``precision``; ``config``: a mixed.json. Raises UsageError, SourceError,
    UnsupportedError."""
    quantizer, precision, settings = _settings(model, precision, method, options, config)
    out = out or model.with_name(f"{model.stem}-{precision}.onnx")
    out = out / model.name if out.is_dir() or out.suffix != ".onnx" else out
    if out.resolve() == model.resolve():
        raise UsageError("the result would overwrite the model", hint="name another file with -o")
    feeds, notes = _calibration(model, quantizer, calibration)
    out.parent.mkdir(parents=True, exist_ok=True)
    # renamed when whole
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".mconv-") as folder:
        staged = Path(folder) / out.name
        found = quantizer.quantize(
            model, staged, precision=precision, options=settings, calibration=feeds
        )
        for path in sorted(Path(folder).iterdir()):
            path.replace(out.parent / path.name)
    layers = msgspec.convert(found.pop("layers", ()), tuple[LayerError, ...])
    notes += [f"{key}: {value}" for key, value in sorted(found.items())]
    return Quantized(
        path=str(out),
        precision=precision,
        quantizer=quantizer.name,
        size_bytes=_size(out),
        source_bytes=_size(model),
        notes=tuple(notes),
        layers=layers,
    )


def configure(
    model: Path,
    precision: str | None,
    *,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    calibration: Path | Feeds | None = None,
    config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The mixed.json of what :func:`quantize` would do. Raises UsageError where the quantizer has
    no settings a layer."""
    quantizer, precision, settings = _settings(model, precision, method, options, config)
    if quantizer.configure is None:
        raise UsageError(
            f"{quantizer.name} has no settings a layer",
            hint="use a precision of nbits: int4, int3, int2, mixed",
        )
    feeds, _ = _calibration(model, quantizer, calibration)
    return quantizer.configure(model, precision=precision, options=settings, calibration=feeds)


def _settings(
    model: Path,
    precision: str | None,
    method: str | None,
    options: Mapping[str, Any] | None,
    config: Mapping[str, Any] | None,
) -> tuple[registry.Quantizer, str, dict[str, Any]]:
    if not model.is_file():
        raise SourceError(f"{model} is not there")
    precision = precision or ("mixed" if config else None)
    if precision is None:
        raise UsageError("say what to quantize to", hint="--precision int4, or --config mixed.json")
    target = registry.targets()[TARGET]
    if precision not in target.precisions:
        raise UsageError(
            f"{precision!r} is no precision of ONNX",
            hint=f"there are: {', '.join(target.precisions)}",
        )
    method = method or (config["quantizer"] if config else None)
    if method is not None and method not in registry.quantizers():
        raise UsageError(
            f"there is no quantizer {method!r}",
            hint=f"there are: {', '.join(registry.quantizers())}",
        )
    quantizer = registry.quantizer_for(target, precision, method)
    if quantizer is None or precision not in quantizer.precisions:
        raise UsageError(f"{method or TARGET} does not make {precision}")
    return quantizer, precision, _options(quantizer, options or {}, config)


def _options(
    quantizer: registry.Quantizer, given: Mapping[str, Any], config: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Options given over those of the config over the defaults. Raises UsageError for one that does
    not fit."""
    found = {
        name: schema["default"] for name, schema in quantizer.options.items() if "default" in schema
    }
    if config:
        found |= config["options"] | {
            "layers": {name: about["bits"] for name, about in config["layers"].items()}
        }
    for name, value in given.items():
        if name not in quantizer.options:
            raise UsageError(
                f"{quantizer.name} has no option {name!r}",
                hint=f"it has: {', '.join(quantizer.options) or 'none'}",
            )
        if wrong := manifest_options.option_problem(value, quantizer.options[name]):
            raise UsageError(f"{name} {wrong}, not {value!r}")
        found[name] = value
    return found


def _calibration(
    model: Path, quantizer: registry.Quantizer, given: Path | Feeds | None
) -> tuple[Feeds | None, list[str]]:
    """Calibration feeds: those given, of a file or not, else drawn from the inputs' shapes, which
    is noted."""
    if not quantizer.calibration:
        return None, []
    inputs = model_info.describe(model).inputs
    if isinstance(given, Path):
        arrays = samples.read_user_file(given)
        return samples.user_feeds(arrays, inputs, (), dims={}, file=given.name)[0], []
    if given is not None:
        return given, []
    return samples.draw_feeds(inputs, count=DRAWN, seed=samples.SEED + 1, dims={}), [NOTE]


def read_config(path: Path) -> dict[str, Any]:
    """A mixed.json. Raises UsageError for what breaks its schema (``mconv schema mixed``)."""
    from mconv.manifest import schema as manifest_schema

    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as problem:
        raise UsageError(f"{path} cannot be read: {problem}") from problem
    if wrong := manifest_schema.mixed_problem(found):
        raise UsageError(
            f"{path}: {wrong}", hint="`mconv schema mixed` shows what it must look like"
        )
    assert isinstance(found, dict)
    return found


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.parent.glob(f"{path.name}*") if p.is_file())

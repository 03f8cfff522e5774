"""The conversion to ONNX by jax2onnx, at free sizes where it can, each attempt proved."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mconv import samples
from mconv.errors import SourceError, UnsupportedError
from mconv.onnx_graph import model_files, model_info
from mconv.sources import _named
from mconv.sources._jax import CHATTER
from mconv.sources._jax.model import JaxModel
from mconv.values import ExportInfo

if TYPE_CHECKING:
    import jax
    import numpy as np
    import onnx

OPSET = 20


def convert_model(model: JaxModel, out: Path) -> ExportInfo:
    """Write ``out/model.onnx`` with all free axes of the model, else with those of batches, else
    with none.

    The model is traced to primitives first where jax2onnx does not take it as it is: its patches of
    Flax and jax.numpy, which keep layers whole, do not know every signature.

    Raises UnsupportedError with each attempt's reason where none gives a right graph.
    """
    free = sorted({dim for spec in model.inputs for dim in spec.shape if isinstance(dim, str)})
    attempts: list[str] = []
    target = out / model_files.MODEL_FILE
    for axes in [free, [d for d in free if "batch" in d], []] if free else [[]]:
        feeds = _draw_two(model, axes)
        fixed = _sizes_of_fixed_axes(model, axes, feeds[0])
        sizes = f"free {', '.join(axes)}" if axes else "fixed sizes"
        specs = _make_specs(model, axes, fixed)
        try:
            traced = _trace(model, specs)
            answers = [model.run(feed) for feed in feeds]
        except UnsupportedError:
            raise
        except Exception as problem:  # a shape that must be known, or the repository's code
            attempts.append(f"JAX at {sizes}: {_reason(problem)}")
            continue
        ways = {"jax2onnx": _make_positional(model), "jax2onnx, of primitives": traced}
        for name, function in ways.items():
            try:
                with _named.silence_exporters(*CHATTER), _unpatched():
                    graph = model_files.model_of(_import_converter()(function, specs, opset=OPSET))
                _named.name_values(graph, model.inputs, model.outputs, fixed)
                model_files.save_model(graph, target)
                _named.prove_export(target, feeds, answers)
            except Exception as problem:
                # jax2onnx raises anything; the reason is kept and the next way is tried
                attempts.append(f"{name} at {sizes}: {_reason(problem)}")
                continue
            return ExportInfo(
                exporter=f"{name}, opset {OPSET}",
                model=model_info.describe(target),
                attempts=tuple(attempts),
                warnings=_warn_of_fixed(fixed),
            )
    raise UnsupportedError(
        "jax2onnx cannot turn the model into ONNX: " + "; ".join(dict.fromkeys(attempts)),
        hint="the messages name the primitive; rewriting that part of the function usually helps",
    )


def _make_positional(model: JaxModel) -> Callable[..., tuple[jax.Array, ...]]:
    """Return the model as a function to a tuple, in the order of ``outputs``."""
    names = [spec.name for spec in model.outputs]

    def call(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        answer = model.function(*arrays)
        return tuple(answer[name] for name in names)

    return call


def _warn_of_fixed(fixed: Mapping[str, int]) -> tuple[str, ...]:
    """Return what is to be known of a graph with these axes fixed."""
    if not fixed:
        return ()
    axes = ", ".join(sorted(fixed))
    return (f"the axes {axes} are fixed in the export: it is right at one size only",)


def _import_converter() -> Callable[..., onnx.ModelProto]:
    """Return ``jax2onnx.to_onnx`` without its examples, and without its plug-ins for Equinox where
    the factory does not use it.

    Those build layers when they are imported, which takes most of the time of an export; it passes
    over modules that are not there.
    """
    idle = ["jax2onnx.plugins.examples"]
    if "equinox" not in sys.modules:
        idle.append("jax2onnx.plugins.equinox")
    hidden = [name for name in idle if name not in sys.modules]
    try:
        # None: importing it raises ModuleNotFoundError
        sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
        from jax2onnx import to_onnx
        from jax2onnx.plugins.plugin_system import import_all_plugins

        import_all_plugins()
        return to_onnx  # type: ignore[no-any-return]
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def _draw_two(model: JaxModel, axes: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """Return two feeds that differ in the size of every axis in ``axes``; one where there is
    none."""
    static = samples.static_dims(model.inputs, {})
    feeds = []
    for which, (batch, length) in enumerate(((2, 12), (3, 7))[: 2 if axes else 1]):
        sizes = {axis: size for axis, size in static.items() if axis not in axes}
        for axis in axes:
            sizes[axis] = batch if "batch" in axis else length
        feeds.append(model.draw_feeds(2, samples.SEED + 1, sizes)[which])
    return feeds


def _sizes_of_fixed_axes(
    model: JaxModel, axes: Sequence[str], feed: Mapping[str, np.ndarray]
) -> dict[str, int]:
    """Return the sizes in a feed of the model's free axes that are not in ``axes``."""
    sizes = samples.sizes_of(model.inputs, feed)
    return {dim: size for dim, size in sizes.items() if dim not in axes}


def _make_specs(
    model: JaxModel, axes: Sequence[str], fixed: Mapping[str, int]
) -> list[jax.ShapeDtypeStruct]:
    """Return what the model is traced with: symbols for ``axes``, sizes for all others."""
    export = model.jax.export
    scope = export.SymbolicScope()
    sizes = dict(fixed)
    for index, axis in enumerate(axes):
        sizes[axis] = export.symbolic_shape(f"axis{index}", scope=scope)[0]
    specs = []
    for spec in model.inputs:
        shape = tuple(dim if isinstance(dim, int) else sizes.get(dim) for dim in spec.shape)
        specs.append(model.jax.ShapeDtypeStruct(shape, spec.dtype))
    return specs


def _trace(
    model: JaxModel, specs: Sequence[jax.ShapeDtypeStruct]
) -> Callable[..., tuple[jax.Array, ...]]:
    """Return the model as a function of primitives only, in the order of ``outputs``, without what
    no output depends on.

    Raises UnsupportedError where an input is not used.
    """
    from jax.core import eval_jaxpr
    from jax.interpreters.partial_eval import dce_jaxpr

    closed = model.jax.make_jaxpr(_make_positional(model))(*specs)
    jaxpr, used = dce_jaxpr(closed.jaxpr, [True] * len(model.outputs))
    idle = [spec.name for spec, is_used in zip(model.inputs, used, strict=True) if not is_used]
    if idle:
        raise UnsupportedError(
            f"the model does not use its input {', '.join(idle)}; remove it from `inputs:`"
        )
    return lambda *arrays: tuple(eval_jaxpr(jaxpr, closed.consts, *arrays))


def _reason(problem: BaseException) -> str:
    """Return the problem in one line, without JAX's rulers and its advice on traces."""
    if isinstance(problem, SourceError | UnsupportedError):
        text = problem.message
    else:
        text = f"{type(problem).__name__}: {problem}"
    text = " ".join(text.split()).replace("-" * 20, "")
    return re.sub(r" For simplicity, JAX has removed.*", "", text)[:300]


@contextlib.contextmanager
def _unpatched() -> Iterator[None]:
    """Undo what jax2onnx leaves patched in the modules of JAX and Flax (jax2onnx 0.17:
    jax.numpy.cumsum and others)."""
    before = {
        module: dict(vars(module))
        for name, module in list(sys.modules.items())
        if name.split(".")[0] in ("jax", "flax") and "._src" not in name
    }
    try:
        yield
    finally:
        for module, values in before.items():
            for name, value in values.items():
                if vars(module).get(name) is not value:
                    setattr(module, name, value)

"""Answers of any framework as named tensors, their specs, and the proof of an export against
them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv import compare
from mconv.errors import SourceError, UnsupportedError
from mconv.onnx_graph import sessions, surgery
from mconv.values import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

EXPORT_TOLERANCE = 1e-3  # largest difference, relative to the output's largest magnitude


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Keep the chatter of exporters, and of the loggers ``names``, out of the log; what matters
    comes as an exception."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def flatten(answer: Any, tensor: type | tuple[type, ...], prefix: str = "output") -> dict[str, Any]:
    """Named tensors of whatever a model returns: a tensor, tuple, list, dict or dataclass; None
    entries are left out.

    A mapping keeps its keys; one nameless tensor is ``output``, several are ``output_0`` …; nested
    ones join with ``_``. A key that another nested mapping has given already gets its own mapping's
    name before it. Raises SourceError for anything else."""
    if isinstance(answer, tensor):
        return {prefix: answer}
    if dataclasses.is_dataclass(answer) and not isinstance(answer, Mapping):
        answer = {f.name: getattr(answer, f.name) for f in dataclasses.fields(answer)}
    elif isinstance(answer, tuple) and hasattr(answer, "_fields"):
        answer = dict(zip(answer._fields, answer, strict=True))
    if isinstance(answer, Mapping):
        named = {str(k): v for k, v in answer.items() if v is not None}
    elif isinstance(answer, list | tuple):
        kept = [v for v in answer if v is not None]
        named = {(f"{prefix}_{i}" if len(kept) > 1 else prefix): v for i, v in enumerate(kept)}
    else:
        raise SourceError(
            f"the model returned {type(answer).__name__}; mconv takes tensors, and tuples, dicts "
            "and dataclasses of tensors",
            hint="wrap the model so that it returns tensors",
        )
    flat: dict[str, Any] = {}
    for name, value in named.items():
        if isinstance(value, tensor):
            inner = {name: value}
        else:
            inner = {
                (k if isinstance(value, Mapping) else f"{name}{k.removeprefix(name)}"): v
                for k, v in flatten(value, tensor, name).items()
            }
            # CLIP's towers both give a last_hidden_state
            inner = {f"{name}_{k}" if k in flat else k: v for k, v in inner.items()}
        if twice := sorted(inner.keys() & flat.keys()):
            raise SourceError(
                f"the model returns two outputs named {twice[0]!r}",
                hint="give the outputs of nested dicts names of their own",
            )
        flat |= inner
    return flat


def infer_output_specs(
    answers: Sequence[Mapping[str, np.ndarray]],
    feeds: Sequence[Mapping[str, np.ndarray]],
    inputs: Sequence[TensorSpec],
) -> tuple[TensorSpec, ...]:
    """Shapes of outputs from answers at two sizes: an axis that varies takes the name of the input
    axis of its size."""
    sizes: list[dict[str, int]] = []
    for feed in feeds:
        found: dict[str, int] = {}
        for spec in inputs:
            for dim, got in zip(spec.shape, feed[spec.name].shape, strict=True):
                if isinstance(dim, str):
                    found[dim] = got
        sizes.append(found)
    specs = []
    for name, first in answers[0].items():
        shape: list[int | str] = []
        for axis, size in enumerate(first.shape):
            seen = [a[name].shape[axis] for a in answers]
            if len(set(seen)) == 1:
                shape.append(size)
            else:
                match = [
                    d
                    for d in sizes[0]
                    if all(s[d] == got for s, got in zip(sizes, seen, strict=True))
                ]
                shape.append(match[0] if match else f"{name}_{axis}")
        specs.append(
            TensorSpec(
                name=name,
                dtype="object" if first.dtype.kind in "OUS" else str(first.dtype),
                shape=tuple(shape),
            )
        )
    return tuple(specs)


def rename(
    model: ir.Model,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    fixed: Mapping[str, int] | None = None,
) -> None:
    """Give a graph, in place, the model's own input, output and axis names, in order; drop remarks,
    and the types of what lies between.

    ``fixed``: free axes of the model that are not free in the graph, with their size.

    Raises UnsupportedError where the graph has more or fewer inputs or outputs than the model, or
    one value is two of them.
    """
    graph = model.graph
    values = [*graph.inputs, *graph.outputs]
    specs = [*inputs, *outputs]
    if len(graph.inputs) != len(inputs) or len(graph.outputs) != len(outputs):
        raise UnsupportedError(
            f"the export has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs, the "
            f"model {len(inputs)} and {len(outputs)}"
        )
    mapping = {value.name or "": spec.name for value, spec in zip(values, specs, strict=True)}
    if len(mapping) < len(specs):
        raise UnsupportedError(
            "the model hands an input through, or gives one output twice; drop it or compute it"
        )
    taken = set(graph.initializers)
    for node in graph:
        taken.update(value.name or "" for value in (*node.inputs, *node.outputs) if value)
    for name in set(mapping.values()) & taken - mapping.keys():
        mapping[name] = f"{name}_inner"
    surgery.rename_values(graph, mapping)
    surgery.strip_remarks(model)
    surgery.forget_types(graph)
    graph.name = "main"
    for value, spec in zip(values, specs, strict=True):
        surgery.set_shape(value, spec.shape, fixed)


def prove(
    target: Path,
    feeds: Sequence[Mapping[str, np.ndarray]],
    answers: Sequence[Mapping[str, np.ndarray]],
    tolerance: float = EXPORT_TOLERANCE,
) -> None:
    """Run the graph with onnxruntime's own optimisations off and hold it against the framework's
    ``answers``.

    Raises UnsupportedError where an input is not used, an output is missing, has another shape, or
    differs."""
    prover = Prover(target)
    for feed, wanted in zip(feeds, answers, strict=True):
        prover.check(feed, wanted, tolerance)


class Prover:
    """Holds a graph, as it is written, against a framework's answers."""

    def __init__(self, target: Path) -> None:
        self._session = sessions.as_written(target)

    def check(
        self,
        feed: Mapping[str, np.ndarray],
        wanted: Mapping[str, np.ndarray],
        tolerance: float = EXPORT_TOLERANCE,
    ) -> None:
        """Raise UnsupportedError where an input is not used, an output is missing, has another
        shape, or differs from what is ``wanted``; what onnxruntime raises where it fails."""
        if missing := feed.keys() - {i.name for i in self._session.get_inputs()}:
            raise UnsupportedError(
                f"the model does not use its input {', '.join(sorted(missing))}; remove it from "
                "`inputs:`"
            )
        names = [o.name for o in self._session.get_outputs()]
        if set(names) != wanted.keys():
            raise UnsupportedError(f"outputs {sorted(names)} where the model has {sorted(wanted)}")
        got = dict(zip(names, self._session.run(names, dict(feed)), strict=True))
        for name, reference in wanted.items():
            if got[name].shape != reference.shape:
                raise UnsupportedError(
                    f"output {name} has shape {list(got[name].shape)}, the model gives "
                    f"{list(reference.shape)}"
                )
            error = compare.compare_outputs(name, [got[name]], [reference])
            if error.elements and (error.max_abs is None or (error.max_rel or 0.0) > tolerance):
                raise UnsupportedError(
                    f"output {name} differs from the model by {error.max_rel} of its largest "
                    "magnitude"
                )

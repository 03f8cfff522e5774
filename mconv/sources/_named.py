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
from typing import TYPE_CHECKING, TypeVar

from mconv import compare
from mconv.errors import SourceError, UnsupportedError
from mconv.onnx_graph import sessions, surgery
from mconv.values import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

T = TypeVar("T")
EXPORT_TOLERANCE = 1e-3  # largest difference, relative to the output's largest magnitude


@contextlib.contextmanager
def silence_exporters(*names: str) -> Iterator[None]:
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


def flatten_answer(answer: object, tensor: type[T], prefix: str = "output") -> dict[str, T]:
    """Return the named tensors of whatever a model returns: a ``tensor``, tuple, list, dict or
    dataclass; None entries are left out.

    A mapping keeps its keys; one nameless tensor is ``output``, several are ``output_0`` …; nested
    ones join with ``_``. A key that another nested mapping has given already gets its own mapping's
    name before it.

    Raises SourceError for anything else, and where two outputs have one name.
    """
    if isinstance(answer, tensor):
        return {prefix: answer}
    flat: dict[str, T] = {}
    for name, value in _name_members(answer, prefix).items():
        inner: dict[str, T] = {}
        for key, member in flatten_answer(value, tensor, name).items():
            own = key
            if not isinstance(value, (Mapping, tensor)):
                own = f"{name}{key.removeprefix(name)}"
            # CLIP's towers both give a last_hidden_state
            clashes = own in flat and not isinstance(value, tensor)
            inner[f"{name}_{own}" if clashes else own] = member
        if twice := sorted(inner.keys() & flat.keys()):
            raise SourceError(
                f"the model returns two outputs named {twice[0]!r}",
                hint="give the outputs of nested dicts names of their own",
            )
        flat |= inner
    return flat


def _name_members(answer: object, prefix: str) -> dict[str, object]:
    """Return what a mapping, dataclass, tuple or list holds by name, entries of None left out.

    Raises SourceError for what is none of them.
    """
    if isinstance(answer, Mapping):
        members: dict[str, object] = {str(key): value for key, value in answer.items()}
    elif dataclasses.is_dataclass(answer):
        members = {field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)}
    elif isinstance(answer, tuple) and hasattr(answer, "_fields"):
        members = dict(zip(answer._fields, answer, strict=True))
    elif isinstance(answer, list | tuple):
        values = [value for value in answer if value is not None]
        if len(values) == 1:
            return {prefix: values[0]}
        return {f"{prefix}_{index}": value for index, value in enumerate(values)}
    else:
        raise SourceError(
            f"the model returned {type(answer).__name__}; mconv takes tensors, and tuples, dicts "
            "and dataclasses of tensors",
            hint="wrap the model so that it returns tensors",
        )
    return {name: value for name, value in members.items() if value is not None}


def infer_output_specs(
    answers: Sequence[Mapping[str, np.ndarray]],
    feeds: Sequence[Mapping[str, np.ndarray]],
    inputs: Sequence[TensorSpec],
) -> tuple[TensorSpec, ...]:
    """Return the specs of outputs from ``answers`` at two sizes: an axis that varies takes the name
    of the input axis that has its size in every one of ``feeds``, else one of its own."""
    sizes = [_sizes_of_axes(feed, inputs) for feed in feeds]
    specs = []
    for name, first in answers[0].items():
        shape: list[int | str] = []
        for axis, size in enumerate(first.shape):
            seen = [answer[name].shape[axis] for answer in answers]
            if len(set(seen)) == 1:
                shape.append(size)
            else:
                shape.append(_axis_of_sizes(seen, sizes) or f"{name}_{axis}")
        dtype = "object" if first.dtype.kind in "OUS" else str(first.dtype)
        specs.append(TensorSpec(name=name, dtype=dtype, shape=tuple(shape)))
    return tuple(specs)


def _sizes_of_axes(feed: Mapping[str, np.ndarray], inputs: Sequence[TensorSpec]) -> dict[str, int]:
    """Return the sizes of the inputs' free axes in a feed."""
    sizes: dict[str, int] = {}
    for spec in inputs:
        for dim, size in zip(spec.shape, feed[spec.name].shape, strict=True):
            if isinstance(dim, str):
                sizes[dim] = size
    return sizes


def _axis_of_sizes(seen: Sequence[int], sizes: Sequence[Mapping[str, int]]) -> str | None:
    """Return the first free axis that had the sizes ``seen``, feed by feed."""
    for axis in sizes[0]:
        if all(of_feed[axis] == size for of_feed, size in zip(sizes, seen, strict=True)):
            return axis
    return None


def name_values(
    model: ir.Model,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    fixed: Mapping[str, int] | None = None,
) -> None:
    """Give a graph, in place, the model's own input, output and axis names, in order; drop remarks,
    and the types of what lies between.

    ``fixed``: free axes of the model that are not free in the graph, with their sizes.

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


def prove_export(
    target: Path,
    feeds: Sequence[Mapping[str, np.ndarray]],
    answers: Sequence[Mapping[str, np.ndarray]],
    tolerance: float = EXPORT_TOLERANCE,
) -> Prover:
    """Run the graph with onnxruntime's own optimisations off and hold it against the framework's
    ``answers``; return what does so, to be asked more.

    ``tolerance`` is the largest difference, relative to the largest magnitude of an output.

    Raises UnsupportedError where an input is not used, an output is missing, has another shape, or
    differs.
    """
    prover = Prover(target)
    for feed, reference in zip(feeds, answers, strict=True):
        prover.check(feed, reference, tolerance)
    return prover


class Prover:
    """Holds a graph, as it is written, against a framework's answers: onnxruntime runs it, with its
    own optimisations off."""

    def __init__(self, target: Path) -> None:
        self._session = sessions.as_written(target)

    def check(
        self,
        feed: Mapping[str, np.ndarray],
        reference: Mapping[str, np.ndarray],
        tolerance: float = EXPORT_TOLERANCE,
    ) -> None:
        """Run the graph on a feed and hold its answer against the framework's, ``reference``.

        Raises UnsupportedError where an input is not used, an output is missing, has another shape,
        or differs, and what onnxruntime raises where it fails.
        """
        if missing := feed.keys() - {value.name for value in self._session.get_inputs()}:
            raise UnsupportedError(
                f"the model does not use its input {', '.join(sorted(missing))}; remove it from "
                "`inputs:`"
            )
        names = [value.name for value in self._session.get_outputs()]
        if set(names) != reference.keys():
            raise UnsupportedError(
                f"outputs {sorted(names)} where the model has {sorted(reference)}"
            )
        exported = dict(zip(names, self._session.run(names, dict(feed)), strict=True))
        for name, array in reference.items():
            _compare_output(name, exported[name], array, tolerance)


def _compare_output(
    name: str, exported: np.ndarray, reference: np.ndarray, tolerance: float
) -> None:
    """Raise UnsupportedError where an output of the graph is not the framework's."""
    if exported.shape != reference.shape:
        raise UnsupportedError(
            f"output {name} has shape {list(exported.shape)}, the model gives "
            f"{list(reference.shape)}"
        )
    error = compare.compare_outputs(name, [exported], [reference])
    if error.elements and (error.max_abs is None or (error.max_rel or 0.0) > tolerance):
        raise UnsupportedError(
            f"output {name} differs from the model by {error.max_rel} of its largest magnitude"
        )

"""What reaches a layer, and what the whole model answers, with any weights put in place:
onnxruntime runs the float graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mconv.errors import StepError, UsageError
from mconv.onnx_graph.serialization import serialize
from mconv.quantizers._graphs import copy_model, named_values, values_of
from mconv.quantizers._nbits.layers import Layer
from mconv.values import fits_shape

if TYPE_CHECKING:
    import onnx_ir as ir
    import onnxruntime

    from mconv.contracts import Feed

    Weights: TypeAlias = Mapping[str, np.ndarray]  # name → array, of the shape in the graph

BATCH = 32
# [batch, length], 0 where a position is padding: the name that tokenizers give it
MASK = "attention_mask"
ROOM = 1 << 30  # bytes of clean activations that are kept
ROWS = 16384  # of a product's inputs: about as many as its moments need; feeds beyond are left out


class Activations:
    """The model with its layers' weights as inputs and what each product reads as outputs, in one
    session.

    Attributes:
        weights: the model's own weights, by layer.
        outputs: the names of the model's own outputs.
        feeds: the calibration samples, those of equal shape in batches.
    """

    def __init__(self, model: ir.Model, layers: Sequence[Layer], feeds: Sequence[Feed]) -> None:
        """Open the session, and check and batch the samples.

        Raises UsageError where there is none, or one does not fit the model."""
        names = {layer.name for layer in layers}
        self.weights = {name: values_of(model.graph, name) for name in names}
        self.outputs = [output.name or "" for output in model.graph.outputs]
        instrumented = expose_layers(model, layers)
        inputs = {value.name for value in instrumented.graph.inputs}
        self._captured = sorted(_activations_read(layers) - inputs)
        self._clean: dict[int, dict[str, np.ndarray]] = {}
        self._room = ROOM
        self._session = _open_session(instrumented)
        fitting = [_check_feed(feed, self._session, names) for feed in feeds]
        self.feeds: Sequence[Feed] = _batch(fitting, self._session)
        if not self.feeds:
            raise UsageError(
                "there is no calibration sample",
                hint="name a file with at least one in `calibration: {data: …}`",
            )
        if self._captured:
            first = self._capture_clean(0, self._captured[-1])
            sizes = [_elements(feed) for feed in self.feeds]
            self.feeds = self.feeds[: count_needed(sizes, first.size // first.shape[-1])]

    def run(self, outputs: Sequence[str], changed: Weights, feed: Feed) -> list[np.ndarray]:
        """Return tensors of the graph for a feed, with ``changed`` weights in place of the model's
        own."""
        arrays: list[np.ndarray] = self._session.run(
            list(outputs), {**self.weights, **changed, **feed}
        )
        return arrays

    def _capture_clean(self, index: int, name: str) -> np.ndarray:
        """Return tensor ``name`` for feed ``index`` with the model's own weights; all are kept
        where they are few enough."""
        if index not in self._clean:
            arrays = self.run(self._captured, {}, self.feeds[index])
            size = sum(array.nbytes for array in arrays)
            if self._room < size:
                return arrays[self._captured.index(name)]
            self._room -= size
            self._clean[index] = dict(zip(self._captured, arrays, strict=True))
        return self._clean[index][name]

    def measure_moments(self, name: str, changed: Weights) -> tuple[np.ndarray, np.ndarray]:
        """Return XqᵀXq / n and XᵀXq / n of the n vectors of tensor ``name``, [columns, columns]
        each: Xq with ``changed`` weights, X with the model's own.

        Raises StepError where they are not finite."""
        own: np.ndarray | None = None
        both: np.ndarray | None = None
        count = 0
        for index, feed in enumerate(self.feeds):
            if name in feed:
                clean = disturbed = feed[name]
            else:
                clean = self._capture_clean(index, name)
                disturbed = self.run([name], changed, feed)[0] if changed else clean
            x: np.ndarray = _vectors(clean, feed).astype(np.float64)
            q: np.ndarray = _vectors(disturbed, feed).astype(np.float64)
            if not (np.isfinite(x).all() and np.isfinite(q).all()):
                raise StepError(
                    f"{name!r} is not finite on the calibration samples",
                    hint="check the calibration data",
                )
            own = q.T @ q if own is None else own + q.T @ q
            both = x.T @ q if both is None else both + x.T @ q
            count += len(x)
        assert own is not None  # there is a feed
        assert both is not None
        return own / max(count, 1), both / max(count, 1)

    def measure_magnitude(self, name: str) -> np.ndarray:
        """Return mean|X_j| [columns] of tensor ``name`` with the model's own weights."""
        total = np.zeros((), np.float64)
        count = 0
        for index, feed in enumerate(self.feeds):
            array = feed[name] if name in feed else self._capture_clean(index, name)
            vectors = _vectors(array, feed)
            total = total + np.abs(vectors).sum(0, dtype=np.float64)
            count += len(vectors)
        return total / max(count, 1)

    def answer_feeds(self, changed: Weights, count: int | None = None) -> list[list[np.ndarray]]:
        """Return the model's own outputs for the first ``count`` feeds with ``changed`` weights,
        without what padding came to."""
        answers = []
        for feed in self.feeds[:count]:
            arrays = self.run(self.outputs, changed, feed)
            answers.append([_vectors(array, feed) if array.ndim > 1 else array for array in arrays])
        return answers


def expose_layers(model: ir.Model, layers: Sequence[Layer]) -> ir.Model:
    """Return a copy of the model whose layers' weights are inputs without a default, and where what
    products read is an output beside the model's own."""
    import onnx_ir as ir

    copy = copy_model(model)
    graph = copy.graph
    for layer in layers:
        weight = graph.initializers[layer.name]
        del graph.initializers[layer.name]
        weight.const_value = None
        if not weight.is_graph_input():
            graph.inputs.append(weight)
    values = named_values(graph)
    present = {value.name for value in (*graph.inputs, *graph.outputs)}
    for name in sorted(_activations_read(layers) - present):
        values[name].type, values[name].shape = ir.TensorType(ir.DataType.FLOAT), None
        graph.outputs.append(values[name])
    return copy


def _activations_read(layers: Sequence[Layer]) -> set[str]:
    """Return the names of what products read beside their weights."""
    names = set()
    for layer in layers:
        if layer.kind == "product":
            read = [node.inputs[0] for node in layer.nodes]
            names |= {value.name or "" for value in read if value is not None}
    return names


def _open_session(model: ir.Model) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        serialize(model), options, providers=["CPUExecutionProvider"]
    )


def _elements(feed: Feed) -> int:
    return max(array.size for array in feed.values())


def count_needed(elements: Sequence[int], rows: int) -> int:
    """Return how many feeds of so many ``elements`` come to ROWS vectors, where the first has
    ``rows``."""
    total = 0.0
    for index, size in enumerate(elements):
        total += rows * size / max(elements[0], 1)
        if total >= ROWS:
            return index + 1
    return len(elements)


def _vectors(array: np.ndarray, feed: Feed) -> np.ndarray:
    """Return ``array`` as vectors [n, columns], those of padded positions left out: nobody reads
    them, and they would count as samples."""
    mask = feed.get(MASK)
    vectors = array.reshape(-1, array.shape[-1])
    if (
        mask is not None
        and mask.ndim == 2
        and len(vectors) == mask.size
        and array.shape[0] in (mask.size, len(mask))
    ):
        vectors = vectors[mask.reshape(-1).astype(bool)]
    return vectors


def _batch(feeds: Sequence[Feed], session: onnxruntime.InferenceSession) -> Sequence[Feed]:
    """Return feeds of equal shape laid together, up to BATCH rows, where the first axis of every
    input is free."""
    if not feeds or not _are_batches_free(session, feeds[0]):
        return feeds
    alike: dict[tuple[tuple[str, tuple[int, ...], str], ...], list[Feed]] = {}
    for feed in feeds:
        if len({array.shape[0] for array in feed.values()}) != 1:
            return feeds
        key = sorted((name, array.shape[1:], array.dtype.str) for name, array in feed.items())
        alike.setdefault(tuple(key), []).append(feed)
    batches: list[Feed] = []
    for group in alike.values():
        rows = next(iter(group[0].values())).shape[0]
        size = max(1, BATCH // max(rows, 1))
        for start in range(0, len(group), size):
            part = group[start : start + size]
            batches.append(
                {name: np.concatenate([feed[name] for feed in part]) for name in part[0]}
            )
    return batches


def _are_batches_free(session: onnxruntime.InferenceSession, feed: Feed) -> bool:
    """Return whether the first axis of every input that is fed has no fixed size."""
    fed = [each for each in session.get_inputs() if each.name in feed]
    return all(each.shape and not isinstance(each.shape[0], int) for each in fed)


def _check_feed(feed: Feed, session: onnxruntime.InferenceSession, weights: set[str]) -> Feed:
    """Return what of a calibration sample the model takes.

    Raises UsageError for a name that is missing, or a shape that does not fit."""
    inputs = {each.name: each for each in session.get_inputs() if each.name not in weights}
    if missing := sorted(inputs.keys() - feed.keys()):
        raise UsageError(
            f"the calibration data has no {', '.join(missing)}; it has "
            f"{', '.join(sorted(feed)) or 'nothing'}",
            hint="one array for each input, samples along the first axis",
        )
    for name, expected in inputs.items():
        shape = feed[name].shape
        if not fits_shape(shape, expected.shape):
            raise UsageError(
                f"the calibration data's {name} has shape {list(shape)}, the model takes "
                f"{list(expected.shape)}",
                hint="give `calibration: {data: …}` samples of the model's shape",
            )
    return {name: feed[name] for name in inputs}


def relative_error(
    answers: Sequence[Sequence[np.ndarray]], reference: Sequence[Sequence[np.ndarray]]
) -> float:
    """Return the relative squared error of all float outputs: the mean over outputs of
    Σ(a - r)² / Σr²."""
    errors = []
    for index in range(len(reference[0])):
        if not np.issubdtype(reference[0][index].dtype, np.floating):
            continue
        noise = sum(
            float(np.square(a[index].astype(np.float64) - r[index]).sum())
            for a, r in zip(answers, reference, strict=True)
        )
        signal = sum(float(np.square(r[index].astype(np.float64)).sum()) for r in reference)
        errors.append(noise / signal if signal else noise)
    return float(np.mean(errors)) if errors else 0.0

"""What reaches a layer, and what the whole model answers, with any weights put in place:
onnxruntime runs the float graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mconv.errors import StepError, UsageError
from mconv.quantizers._nbits.layers import Layer

if TYPE_CHECKING:
    import onnx

BATCH = 32
# [batch, length], 0 where a position is padding: the name that tokenizers give it
MASK = "attention_mask"
ROOM = 1 << 30  # bytes of clean activations that are kept
ROWS = 16384  # of a product's inputs: about as many as its moments need; feeds beyond are left out


class Activations:
    """The model with its layers' weights as inputs and what each product reads as outputs, in one
    session."""

    def __init__(
        self,
        proto: onnx.ModelProto,
        layers: Sequence[Layer],
        feeds: Sequence[Mapping[str, np.ndarray]],
    ) -> None:
        import onnx
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper

        model = onnx.ModelProto()
        model.CopyFrom(proto)
        graph = model.graph
        names = {layer.name for layer in layers}
        self.weights = {
            t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name in names
        }
        self.own = [v.name for v in graph.output]
        kept = [t for t in graph.initializer if t.name not in names]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        declared = {v.name for v in graph.input}
        graph.input.extend(
            helper.make_tensor_value_info(each.name, TensorProto.FLOAT, each.shape)
            for each in layers
            if each.name not in declared
        )
        read = {n.input[0] for layer in layers if layer.kind == "product" for n in layer.nodes}
        there = {v.name for v in (*graph.input, *graph.output)}
        self.captured = sorted(read - {v.name for v in graph.input})
        self.kept: dict[int, dict[str, np.ndarray]] = {}
        self.room = ROOM
        graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in sorted(read - there)
        )
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.feeds = _batched(
            [_checked(dict(feed), self.session, names) for feed in feeds], self.session
        )
        if not self.feeds:
            raise UsageError(
                "there is no calibration sample",
                hint="name a file with at least one in `calibration: {data: …}`",
            )
        if self.captured:
            first = self._clean(0, self.captured[-1])
            self.feeds = self.feeds[
                : _enough([_elements(feed) for feed in self.feeds], first.size // first.shape[-1])
            ]

    def run(
        self,
        outputs: Sequence[str],
        changed: Mapping[str, np.ndarray],
        feed: Mapping[str, np.ndarray],
    ) -> list[np.ndarray]:
        found: list[np.ndarray] = self.session.run(
            list(outputs), {**self.weights, **changed, **feed}
        )
        return found

    def _clean(self, index: int, name: str) -> np.ndarray:
        """Tensor ``name`` for feed ``index`` with the model's own weights; all are kept where they
        are few enough."""
        if index not in self.kept:
            found = self.run(self.captured, {}, self.feeds[index])
            size = sum(a.nbytes for a in found)
            if self.room < size:
                return found[self.captured.index(name)]
            self.room -= size
            self.kept[index] = dict(zip(self.captured, found, strict=True))
        return self.kept[index][name]

    def cross(self, name: str, changed: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(XqᵀXq / n, XᵀXq / n) of tensor ``name``: Xq with ``changed`` weights, X with the model's
        own."""
        own: np.ndarray | None = None
        both: np.ndarray | None = None
        count = 0
        for index, feed in enumerate(self.feeds):
            if name in feed:
                clean = disturbed = feed[name]
            else:
                clean = self._clean(index, name)
                disturbed = self.run([name], changed, feed)[0] if changed else clean
            x: np.ndarray = _rows(clean, feed).astype(np.float64)
            q: np.ndarray = _rows(disturbed, feed).astype(np.float64)
            if not (np.isfinite(x).all() and np.isfinite(q).all()):
                raise StepError(
                    f"{name!r} is not finite on the calibration samples",
                    hint="check the calibration data",
                )
            own = q.T @ q if own is None else own + q.T @ q
            both = x.T @ q if both is None else both + x.T @ q
            count += len(x)
        assert own is not None
        assert both is not None
        return own / max(count, 1), both / max(count, 1)

    def magnitude(self, name: str) -> np.ndarray:
        """mean|X_j| [columns] of tensor ``name`` with the model's own weights."""
        total: Any = 0.0
        count = 0
        for index, feed in enumerate(self.feeds):
            found = feed[name] if name in feed else self._clean(index, name)
            rows = _rows(found, feed)
            total = total + np.abs(rows).sum(0, dtype=np.float64)
            count += len(rows)
        result: np.ndarray = total / max(count, 1)
        return result

    def answers(
        self, changed: Mapping[str, np.ndarray], count: int | None = None
    ) -> list[list[np.ndarray]]:
        """The model's own outputs for the first ``count`` feeds, without what padding came to."""
        return [
            [_rows(a, feed) if a.ndim > 1 else a for a in self.run(self.own, changed, feed)]
            for feed in self.feeds[:count]
        ]


def _elements(feed: Mapping[str, np.ndarray]) -> int:
    return max(array.size for array in feed.values())


def _enough(elements: Sequence[int], rows: int) -> int:
    """How many feeds of so many ``elements`` come to ROWS vectors, where the first has ``rows``."""
    total = 0.0
    for index, size in enumerate(elements):
        total += rows * size / max(elements[0], 1)
        if total >= ROWS:
            return index + 1
    return len(elements)


def _rows(array: np.ndarray, feed: Mapping[str, np.ndarray]) -> np.ndarray:
    """``array`` as vectors [n, columns], those of padded positions left out: nobody reads them, and
    they would count as samples."""
    mask = feed.get(MASK)
    rows = array.reshape(-1, array.shape[-1])
    if (
        mask is not None
        and mask.ndim == 2
        and len(rows) == mask.size
        and array.shape[0] in (mask.size, len(mask))
    ):
        rows = rows[mask.reshape(-1).astype(bool)]
    return rows


def _batched(feeds: list[dict[str, np.ndarray]], session: Any) -> list[dict[str, np.ndarray]]:
    """Feeds of equal shape laid together, up to BATCH rows, where the first axis of every input is
    free."""
    free = (
        all(
            i.shape and not isinstance(i.shape[0], int)
            for i in session.get_inputs()
            if i.name in feeds[0]
        )
        if feeds
        else False
    )
    if not free:
        return feeds
    alike: dict[Any, list[dict[str, np.ndarray]]] = {}
    for feed in feeds:
        if len({array.shape[0] for array in feed.values()}) != 1:
            return feeds
        alike.setdefault(
            tuple(sorted((n, a.shape[1:], a.dtype.str) for n, a in feed.items())), []
        ).append(feed)
    made = []
    for group in alike.values():
        rows = group[0][next(iter(group[0]))].shape[0]
        size = max(1, BATCH // max(rows, 1))
        for start in range(0, len(group), size):
            part = group[start : start + size]
            made.append({name: np.concatenate([feed[name] for feed in part]) for name in part[0]})
    return made


def _checked(feed: dict[str, np.ndarray], session: Any, weights: set[str]) -> dict[str, np.ndarray]:
    """A calibration sample that fits the model. Raises UsageError for a name, shape or data type
    that does not."""
    inputs = {i.name: i for i in session.get_inputs() if i.name not in weights}
    if missing := sorted(inputs.keys() - feed.keys()):
        raise UsageError(
            f"the calibration data has no {', '.join(missing)}; it has "
            f"{', '.join(sorted(feed)) or 'nothing'}",
            hint="one array for each input, samples along the first axis",
        )
    for name, about in inputs.items():
        shape = feed[name].shape
        fits = len(shape) == len(about.shape) and all(
            not isinstance(want, int) or want == got
            for want, got in zip(about.shape, shape, strict=True)
        )
        if not fits:
            raise UsageError(
                f"the calibration data's {name} has shape {list(shape)}, the model takes "
                f"{list(about.shape)}",
                hint="give `calibration: {data: …}` samples of the model's shape",
            )
    return {name: feed[name] for name in inputs}


def distance(
    answers: Sequence[Sequence[np.ndarray]], reference: Sequence[Sequence[np.ndarray]]
) -> float:
    """Relative squared error of all float outputs: mean over outputs of Σ(a - r)² / Σr²."""
    found = []
    for index in range(len(reference[0])):
        if not np.issubdtype(reference[0][index].dtype, np.floating):
            continue
        above = sum(
            float(np.square(a[index].astype(np.float64) - r[index]).sum())
            for a, r in zip(answers, reference, strict=True)
        )
        below = sum(float(np.square(r[index].astype(np.float64)).sum()) for r in reference)
        found.append(above / below if below else above)
    return float(np.mean(found)) if found else 0.0

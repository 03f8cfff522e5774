"""The domain of an input: which values it takes, found from what the graph does with them.

A reference proves only what its samples try. Ids of {0, 1} leave an embedding table unread, and
numbers around zero leave an image net blind, so each input's values are drawn from what the model
itself shows of them: the table that it indexes, the constants it is compared with, the scale and
shift that come first, the thresholds of trees. What is left is a guess by its type, and is called
one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from mconv.values import Frozen, InputKind, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

Origin = Literal["declared", "source", "graph", "type", "guess"]

MOST_STEPS = 400  # nodes that are looked at behind one input
MOST_MARKS = 64  # elements of a constant that an input is compared with
MOST_FEATURES = 4096  # figures a feature that a domain keeps
# Operators that hand the values of their first input on, in another form.
FORWARDING = frozenset(
    [
        "Cast",
        "CastLike",
        "Identity",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Expand",
        "Tile",
        "Slice",
        "Split",
        "Concat",
        "Pad",
        "Gather",
        "Dropout",
        "Clip",
    ]
)
# Operator → which of its inputs are sizes or positions, so that a large value would ask for a
# large tensor.
SIZES = {
    "Reshape": (1,),
    "Expand": (1,),
    "Tile": (1,),
    "ConstantOfShape": (0,),
    "Range": (0, 1, 2),
    "TopK": (1,),
    "Resize": (2, 3),
    "Upsample": (1,),
    "Pad": (1,),
    "EyeLike": (0,),
    "OneHot": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Unsqueeze": (1,),
    "Squeeze": (1,),
    "Trilu": (1,),
    "Loop": (0,),
    "SequenceAt": (1,),
    "BlackmanWindow": (0,),
    "HannWindow": (0,),
    "HammingWindow": (0,),
    "LSTM": (4,),
    "GRU": (4,),
    "RNN": (4,),
}
INDEXED = {"Gather": 1, "GatherElements": 1, "GatherND": 1, "ScatterElements": 1, "ScatterND": 1}
COMPARING = frozenset(
    ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Min", "Max", "Mod"]
)
BOOLEAN = frozenset(
    ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Not", "And", "Or"]
)
MOST_SWITCHES = 3  # casts between a comparison and what it switches
POSITIVE = frozenset(["Log", "Sqrt"])
TREES = frozenset(
    ["TreeEnsembleClassifier", "TreeEnsembleRegressor", "SVMClassifier", "SVMRegressor", "Scaler"]
)
BYTES = 255.0


class Domain(Frozen, frozen=True, kw_only=True):
    """The values that one input takes.

    Attributes:
        name: The input.
        kind: What they are: ``ids`` into a table, a ``mask``, a ``flag``, a ``count``,
            ``integers``, an ``image``, a ``waveform``, ``positive`` numbers, ``numbers``, or
            ``text``.
        low: The least value; None where nothing says.
        high: The largest value; None where nothing says.
        mean: The middle of the values, one for all or one a feature of the last axis (of an image
            one a channel).
        deviation: How far they lie apart, as ``mean``.
        marks: Values that the model treats in a way of their own: what it compares them with.
        origin: Who says so: the manifest (``declared``), the source's own processor (``source``),
            the ``graph``, the ``type``; ``guess`` where nobody does.
        reason: Why, in words.
    """

    name: str
    kind: InputKind
    low: float | None = None
    high: float | None = None
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    marks: tuple[float, ...] = ()
    origin: Origin = "guess"
    reason: str = ""

    @property
    def guessed(self) -> bool:
        """Whether nothing but the type says which values it takes."""
        return self.origin == "guess"

    def describe(self) -> str:
        """Return the domain in words, for a report."""
        interval = ""
        if self.low is not None or self.high is not None:
            low = "−∞" if self.low is None else f"{self.low:g}"
            high = "∞" if self.high is None else f"{self.high:g}"
            interval = f" from {low} to {high}"
        return f"{self.kind}{interval} ({self.reason or self.origin})"


@dataclass
class _Evidence:
    """What the graph shows of one input. Bounds are of the input itself, whatever scale lies
    between."""

    rows: list[int] = field(default_factory=list)
    marks: set[float] = field(default_factory=set)
    sizes: bool = False
    cast_to_bool: bool = False
    condition: bool = False
    mask: bool = False
    positive: bool = False
    convolved: int = 0  # rank of the weight that it meets
    scale: tuple[np.ndarray, np.ndarray] | None = None  # mean and deviation
    thresholds: dict[int, list[float]] = field(default_factory=dict)
    spectrum: bool = False


def infer_domains(graph: ir.Graph, inputs: Sequence[TensorSpec]) -> dict[str, Domain]:
    """Return the domain of each of ``inputs``, by name, from what a graph does with them.

    An input that the graph does not have is judged by its type, its name and its shape.
    """
    values = {value.name: value for value in graph.inputs}
    domains = {}
    for spec in inputs:
        value = values.get(spec.name)
        evidence = _Evidence() if value is None else _follow(value)
        domains[spec.name] = _conclude(spec, evidence)
    return domains


def find_constant_outputs(graph: ir.Graph) -> set[str]:
    """Return the outputs of a graph that read no value of an input, but at most its shape: whatever
    is asked, they answer the same."""
    reached: set[int] = set()
    waiting = list(graph.inputs)
    owners = _find_owners(graph)
    outputs = {id(value): value.name or "" for value in graph.outputs}
    varying: set[str] = set()
    while waiting:
        value = waiting.pop()
        if id(value) in reached:
            continue
        reached.add(id(value))
        if id(value) in outputs:
            varying.add(outputs[id(value)])
        for node, _ in value.uses():
            if node.op_type not in ("Shape", "Size"):
                waiting += node.outputs
                for owner in owners.get(id(node), ()):  # what a body computes, its node answers
                    waiting += owner.outputs
    return set(outputs.values()) - varying


def _find_owners(graph: ir.Graph) -> dict[int, list[ir.Node]]:
    """The nodes around each node in a body of control flow, by its identity."""
    import onnx_ir as ir

    owners: dict[int, list[ir.Node]] = {}
    for outer in ir.traversal.RecursiveGraphIterator(graph):
        for attribute in outer.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                bodies = [attribute.as_graph()]
            elif attribute.type == ir.AttributeType.GRAPHS:
                bodies = list(attribute.as_graphs())
            else:
                continue
            for body in bodies:
                for inner in ir.traversal.RecursiveGraphIterator(body):
                    owners.setdefault(id(inner), []).append(outer)
    return owners


def guess_domains(inputs: Sequence[TensorSpec]) -> dict[str, Domain]:
    """Return the domain of each of ``inputs``, by name, where there is no graph to look at."""
    return {spec.name: _conclude(spec, _Evidence()) for spec in inputs}


@dataclass
class _Path:
    """A value on the way from an input, and what was done to it: ``scale`` · x + ``shift``.

    ``scale`` is None where that is not known any more.
    """

    value: ir.Value
    scale: np.ndarray | None
    shift: np.ndarray | None
    channels: int  # the axis that figures a channel lie along, from the end


def _follow(start: ir.Value) -> _Evidence:
    """Collect what the nodes behind an input show of it."""
    import numpy as np

    evidence = _Evidence()
    waiting = [_Path(start, np.array(1.0), np.array(0.0), 1)]
    visited: set[int] = set()
    steps = 0
    while waiting and steps < MOST_STEPS:
        path = waiting.pop(0)
        for node, index in path.value.uses():
            steps += 1
            _note(evidence, node, index, path)
            if id(node) in visited:
                continue
            visited.add(id(node))
            waiting += _onward(node, index, path)
    return evidence


def _onward(node: ir.Node, index: int, path: _Path) -> Iterator[_Path]:
    """The outputs of a node that still hold the values of the input, forwarded or moved by
    constants."""
    operator = node.op_type
    # Where chooses between x and x + n, as for indices that count from the end
    chooses = operator == "Concat" or (operator == "Where" and index > 0)
    if (operator in FORWARDING and index == 0) or chooses:
        for output in node.outputs:
            yield _Path(output, path.scale, path.shift, path.channels)
        return
    if operator not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return
    if _selects(node, index):
        yield _Path(node.outputs[0], path.scale, path.shift, path.channels)
    elif (moved := _move(node, index, path)) is not None:
        yield moved


def _move(node: ir.Node, index: int, path: _Path) -> _Path | None:
    """What a sum, difference, product or quotient with a constant makes of the values; None where
    the other operand is none, or where that cannot be said."""
    import numpy as np

    other = _constant(node.inputs[1 - index])
    if other is None or path.scale is None or path.shift is None or other.dtype.kind not in "fiu":
        return None
    figures = np.asarray(other, np.float64)
    if figures.size > MOST_FEATURES:
        return None
    flat = figures.reshape(-1)
    scale, shift = path.scale, path.shift
    with np.errstate(all="ignore"):
        if node.op_type == "Add":
            shift = shift + flat
        elif node.op_type == "Sub":
            scale, shift = (scale, shift - flat) if index == 0 else (-scale, flat - shift)
        elif node.op_type == "Mul":
            scale, shift = scale * flat, shift * flat
        elif index == 0:
            scale, shift = scale / flat, shift / flat
        else:
            return None
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return None
    channels = path.channels
    if flat.size > 1 and figures.ndim >= 1:
        channels = figures.ndim - int(np.argmax(figures.shape))
    return _Path(node.outputs[0], scale, shift, channels)


def _selects(node: ir.Node, index: int) -> bool:
    """Whether a node is part of a choice that is written as a sum of products, x · (x ≥ 0) +
    (x + n) · (x < 0), as TensorFlow's converter writes a Where of integers."""
    other = node.inputs[1 - index]
    if other is None:
        return False
    if node.op_type == "Mul":
        return _is_switch(other)
    producer = other.producer()
    if node.op_type != "Add" or producer is None or producer.op_type != "Mul":
        return False
    return any(value is not None and _is_switch(value) for value in producer.inputs)


def _is_switch(value: ir.Value) -> bool:
    """Whether a value is 1 where a comparison holds, and 0 where not."""
    producer = value.producer()
    if producer is None or producer.op_type != "Cast":
        return False
    for _ in range(MOST_SWITCHES):
        read = producer.inputs[0]
        producer = None if read is None else read.producer()
        if producer is None:
            return False
        if producer.op_type in BOOLEAN:
            return True
    return False


def _note(evidence: _Evidence, node: ir.Node, index: int, path: _Path) -> None:
    """Note what one node shows of the values that it reads."""
    operator = node.op_type
    if INDEXED.get(operator) == index or (operator == "OneHot" and index == 0):
        if (rows := _rows(node)) is not None and _is_plain(path):
            evidence.rows.append(rows)
    elif index in SIZES.get(operator, ()):
        evidence.sizes = True
    elif operator in COMPARING:
        evidence.marks |= _find_marks(node, index, path)
    elif operator in TREES:
        _note_learnt(evidence, node)
    else:
        evidence.cast_to_bool = evidence.cast_to_bool or _casts_to_bool(node)
        evidence.condition = evidence.condition or _decides(node, index)
        evidence.mask = evidence.mask or _takes_from_one(node, index)
        evidence.positive = evidence.positive or operator in POSITIVE
        evidence.spectrum = evidence.spectrum or operator in ("STFT", "DFT")
    _note_first_layer(evidence, node, index, path)


def _find_marks(node: ir.Node, index: int, path: _Path) -> set[float]:
    """Values of the input that a node compares with."""
    import numpy as np

    other = _constant(node.inputs[1 - index]) if len(node.inputs) == 2 else None
    if other is None or other.size > MOST_MARKS or other.dtype.kind not in "fiub":
        return set()
    with np.errstate(all="ignore"):
        marks = _undo(np.asarray(other, np.float64).reshape(-1), path)
    return {float(mark) for mark in marks if np.isfinite(mark)}


def _decides(node: ir.Node, index: int) -> bool:
    """Whether a node does one thing or another by what it reads."""
    return node.op_type == "If" or (node.op_type == "Where" and index == 0)


def _takes_from_one(node: ir.Node, index: int) -> bool:
    """Whether a node is 1 − x, by which masks are inverted."""
    if node.op_type != "Sub" or index != 1:
        return False
    first = _constant(node.inputs[0])
    return first is not None and first.size == 1 and float(first.reshape(-1)[0]) == 1.0


def _note_first_layer(evidence: _Evidence, node: ir.Node, index: int, path: _Path) -> None:
    """Note where the values meet weights, and what stood between."""
    import numpy as np

    operator = node.op_type
    if index != 0 or operator not in (
        "Conv",
        "ConvTranspose",
        "BatchNormalization",
        "MatMul",
        "Gemm",
    ):
        return
    scale, shift = path.scale, path.shift
    if operator == "BatchNormalization":
        mean, variance = _constant(node.inputs[3]), _constant(node.inputs[4])
        if mean is not None and variance is not None and _is_plain(path):
            deviation = np.sqrt(np.maximum(np.asarray(variance, np.float64), 0))
            if (deviation > 0).all():
                evidence.scale = evidence.scale or (np.asarray(mean, np.float64), deviation)
        return
    if operator in ("Conv", "ConvTranspose"):
        weight = node.inputs[1]
        rank = len(weight.shape) if weight is not None and weight.shape is not None else 0
        evidence.convolved = evidence.convolved or rank
    if scale is not None and shift is not None and not _is_plain(path) and (scale != 0).all():
        evidence.scale = evidence.scale or (-shift / scale, 1 / np.abs(scale))


def _note_learnt(evidence: _Evidence, node: ir.Node) -> None:
    """Note what scikit-learn's estimators have learnt of the features: thresholds of trees, means
    and deviations of scalers, support vectors (ai.onnx.ml)."""
    import numpy as np

    figures = {name: attribute.value for name, attribute in node.attributes.items()}
    if "nodes_featureids" in figures and "nodes_values" in figures:
        modes = figures.get("nodes_modes") or []
        for feature, value, mode in zip(
            figures["nodes_featureids"], figures["nodes_values"], modes, strict=False
        ):
            name = mode.decode() if isinstance(mode, bytes) else str(mode)
            if name != "LEAF":
                evidence.thresholds.setdefault(int(feature), []).append(float(value))
    elif "offset" in figures and "scale" in figures:
        scale = np.asarray(figures["scale"], np.float64)
        if (scale != 0).all():
            evidence.scale = evidence.scale or (
                np.asarray(figures["offset"], np.float64),
                1 / np.abs(scale),
            )
    elif "support_vectors" in figures and figures.get("vectors_per_class"):
        count = int(sum(figures["vectors_per_class"]))
        vectors = np.asarray(figures["support_vectors"], np.float64).reshape(count, -1)
        deviation = vectors.std(0)
        evidence.scale = evidence.scale or (
            vectors.mean(0),
            np.where(deviation > 0, deviation, 1.0),
        )


def _conclude(spec: TensorSpec, evidence: _Evidence) -> Domain:
    """Judge an input by its type, what the graph shows of it, its shape and its name."""
    if spec.dtype in ("object", "str", "string"):
        return Domain(name=spec.name, kind="text", origin="type")
    if spec.dtype == "bool":
        return Domain(name=spec.name, kind="flag", low=0, high=1, origin="type", reason="a bool")
    if spec.dtype.startswith(("int", "uint")):
        return _conclude_integers(spec, evidence)
    return _conclude_numbers(spec, evidence)


def _conclude_integers(spec: TensorSpec, evidence: _Evidence) -> Domain:
    marks = tuple(sorted(evidence.marks))[:16]
    name = spec.name
    if evidence.rows:
        rows = min(evidence.rows)
        return Domain(
            name=name,
            kind="ids",
            low=0,
            high=rows - 1,
            marks=marks,
            origin="graph",
            reason=f"it indexes {rows} rows",
        )
    if evidence.sizes:
        return Domain(
            name=name, kind="count", low=1, high=8, marks=marks, reason="it becomes a size"
        )
    masks = evidence.cast_to_bool or evidence.condition or evidence.mask
    if "mask" in name.lower() or masks:
        reason = "it decides where" if masks else "its name says mask"
        return Domain(
            name=name, kind="mask", low=0, high=1, marks=marks, origin="graph", reason=reason
        )
    if spec.dtype == "uint8":
        if _looks_like_image(spec):
            return Domain(
                name=name,
                kind="image",
                low=0,
                high=BYTES,
                origin="type",
                reason="bytes of a picture",
            )
        return Domain(name=name, kind="integers", low=0, high=BYTES, origin="type", reason="bytes")
    return Domain(name=name, kind="integers", marks=marks, reason=f"any {spec.dtype}")


def _conclude_numbers(spec: TensorSpec, evidence: _Evidence) -> Domain:
    import numpy as np

    name = spec.name
    marks = tuple(sorted(evidence.marks))[:16]
    if "mask" in name.lower() and not evidence.convolved:
        return Domain(
            name=name, kind="mask", low=0, high=1, origin="graph", reason="its name says mask"
        )
    if evidence.thresholds:
        means, deviations = _spread_of(evidence.thresholds, spec)
        return Domain(
            name=name,
            kind="numbers",
            mean=means,
            deviation=deviations,
            origin="graph",
            reason="around the thresholds of its trees",
        )
    image = _looks_like_image(spec) and evidence.convolved in (0, 4)
    if evidence.scale is not None:
        mean, deviation = evidence.scale
        if image:
            low, high = _picture_range(mean, deviation)
            reason = "the scale and shift in front of its first layer"
            return Domain(
                name=name, kind="image", low=low, high=high, origin="graph", reason=reason
            )
        width = spec.shape[-1] if spec.shape else 1
        # a scale alone may be a gain as well as a unit
        if mean.size in (1, width) and (mean != 0).any():
            return Domain(
                name=name,
                kind="numbers",
                mean=tuple(float(v) for v in np.broadcast_to(mean, deviation.shape)),
                deviation=tuple(float(v) for v in deviation),
                marks=marks,
                origin="graph",
                reason="the mean and deviation in front of its first layer",
            )
    if image:
        return Domain(name=name, kind="image", reason="its shape is a picture's")
    wave = evidence.spectrum or (
        evidence.convolved == 3 and _free_axes(spec) <= {1, len(spec.shape) - 1}
    )
    if wave and len(spec.shape) in (1, 2, 3) and _channels(spec) <= 2:
        return Domain(
            name=name,
            kind="waveform",
            low=-1,
            high=1,
            origin="graph",
            reason="a signal in time, by its first layer",
        )
    if evidence.positive:
        return Domain(
            name=name,
            kind="positive",
            low=0,
            origin="graph",
            reason="its logarithm or root is taken",
        )
    return Domain(name=name, kind="numbers", marks=marks, reason=f"any {spec.dtype}")


def _channels(spec: TensorSpec) -> int:
    """Channels of a signal in time: of [batch, time] and [time] one, else the middle axis."""
    middle = spec.shape[1] if len(spec.shape) == 3 else 1
    return middle if isinstance(middle, int) else 1


def _free_axes(spec: TensorSpec) -> set[int]:
    return {axis for axis, dim in enumerate(spec.shape) if axis and isinstance(dim, str)}


def _looks_like_image(spec: TensorSpec) -> bool:
    """Whether a tensor has the shape of pictures: [N, C, H, W] or [N, H, W, C], with C 1, 3 or 4
    and sides of at least 8."""
    if len(spec.shape) != 4:
        return False
    for channel, sides in ((1, (2, 3)), (3, (1, 2))):
        side_sizes = [spec.shape[axis] for axis in sides]
        large = all(isinstance(size, str) or size >= 8 for size in side_sizes)
        if spec.shape[channel] in (1, 3, 4) and large:
            return True
    return False


def channel_axis(spec: TensorSpec) -> int:
    """Return the axis of a picture's channels."""
    return 1 if spec.shape[1] in (1, 3, 4) else len(spec.shape) - 1


def _picture_range(mean: np.ndarray, deviation: np.ndarray) -> tuple[float, float]:
    """The range of pictures, of those in use, that the scale in front of the first layer fits best:
    what is scaled lies within some three deviations of zero."""
    centre, spread = float(mean.mean()), float(deviation.mean())
    best, least = (0.0, BYTES), math.inf
    for low, high in ((0.0, BYTES), (0.0, 1.0), (-1.0, 1.0), (-BYTES / 2, BYTES / 2)):
        # of a uniform range scaled to [0, 1], to [-1, 1] or to unit variance
        width = high - low
        options = [(low, width), ((low + high) / 2, width / 2), ((low + high) / 2, width / 3.46)]
        for middle, unit in options:
            off = abs(math.log(spread / unit)) + abs(centre - middle) / width
            if off < least:
                best, least = (low, high), off
    return best


def _spread_of(
    thresholds: Mapping[int, Sequence[float]], spec: TensorSpec
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each feature's thresholds; those of all for a feature without."""
    import numpy as np

    every = np.array([value for values in thresholds.values() for value in values])
    last = spec.shape[-1] if spec.shape else 1
    width = last if isinstance(last, int) and last <= MOST_FEATURES else max(thresholds) + 1
    means, deviations = [], []
    for feature in range(width):
        values = np.array(thresholds.get(feature, every))
        means.append(float(values.mean()))
        spread = float(values.std())
        deviations.append(1.5 * spread if spread > 0 else max(abs(means[-1]), 1.0))
    return tuple(means), tuple(deviations)


def _is_plain(path: _Path) -> bool:
    """Whether the values have come as they are."""
    if path.scale is None or path.shift is None:
        return False
    return bool((path.scale == 1).all() and (path.shift == 0).all())


def _undo(values: np.ndarray, path: _Path) -> np.ndarray:
    """Which values of the input become ``values`` on the way."""
    import numpy as np

    if path.scale is None or path.shift is None or path.scale.size > 1 or path.shift.size > 1:
        return np.zeros(0)
    return np.asarray((values - path.shift) / path.scale)


def _constant(value: ir.Value | None) -> np.ndarray | None:
    """The array that a value always is; None where it is computed."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    node = value.producer()
    if node is not None and node.op_type == "Constant":
        for name in ("value", "value_int", "value_ints", "value_float", "value_floats"):
            if name in node.attributes:
                return _array_of(node.attributes[name].value)
    if node is not None and node.op_type in ("Cast", "Identity", "Unsqueeze", "Reshape", "Neg"):
        array = _constant(node.inputs[0])
        return -array if array is not None and node.op_type == "Neg" else array
    return None


def _array_of(value: object) -> np.ndarray:
    import numpy as np
    import onnx_ir as ir

    if isinstance(value, ir.TensorProtocol):
        return value.numpy()
    return np.asarray(value)


def _rows(node: ir.Node) -> int | None:
    """How many rows there are to choose from, of a node that takes indices; None where that is
    free."""
    if node.op_type == "OneHot":
        depth = _constant(node.inputs[1])
        return None if depth is None else int(depth.reshape(-1)[0])
    data = node.inputs[0]
    if data is None or data.shape is None:
        return None
    attribute = node.attributes.get("axis")
    axis = int(attribute.value) if attribute is not None else 0
    sizes = [size if isinstance(size, int) else None for size in data.shape]
    if node.op_type in ("GatherND", "ScatterND"):
        indices = node.inputs[1]
        last = indices.shape[-1] if indices is not None and indices.shape is not None else None
        return sizes[0] if last == 1 else None
    return sizes[axis] if -len(sizes) <= axis < len(sizes) else None


def _casts_to_bool(node: ir.Node) -> bool:
    import onnx_ir as ir

    if node.op_type != "Cast":
        return False
    attribute = node.attributes.get("to")
    return attribute is not None and int(attribute.value) == int(ir.DataType.BOOL)

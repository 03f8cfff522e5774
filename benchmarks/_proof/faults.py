"""Faults at the level of the graph, as converters, optimizers and quantizers make them.

A fault lists the places of a graph where it can be put; each place is an edit of that graph. A
model that has no such place lists none. Whether an edit is a fault at all, the dense search tells
(:mod:`truth`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import onnx
import onnx_ir as ir

from .graphs import Graph, compute, constant_of, dtype_of, is_float, is_integer, rank_of

SMALLEST_HALF = 6e-5  # the smallest normal number of float16
LARGEST_HALF = 65504.0
EPSILON = 1e-3  # a constant at most this large that is added, or a floor, is an ε
MASKED = -1e4  # a constant at least this negative hides what it is added to, or put in place of
SMALLEST_TABLE = 64  # rows of an embedding table of which half can be lost
WINDOW = 48  # entries of a free axis that a fault may see


class Seen(NamedTuple):
    """What is known of the model that a fault is put into.

    Attributes:
        proto: The unharmed graph, with the shapes that can be told.
        feed: A feed as the proof itself tries it first.
        typical: A typical value of each input, a number.
        centre: The mean of each output along its last axis, or one number where that axis varies.
    """

    proto: onnx.ModelProto
    feed: Mapping[str, np.ndarray]
    typical: Mapping[str, float]
    centre: Mapping[str, np.ndarray]


class Place(NamedTuple):
    """Where a fault can be put.

    Attributes:
        name: The place in words.
        edit: Puts the fault there.
    """

    name: str
    edit: Callable[[], None]


FindPlaces = Callable[[Graph, Seen], Iterator[Place]]


class Fault(NamedTuple):
    """A kind of fault.

    Attributes:
        name: Its name.
        says: What it does, in a few words.
        find: Lists the places.
    """

    name: str
    says: str
    find: FindPlaces


# What is dropped


def find_epsilons(graph: Graph, _: Seen) -> Iterator[Place]:
    """Small constants that keep a logarithm, a root or a quotient finite become 0."""
    for node in graph.nodes("Add", "Max", "Clip", "Sub"):
        for index, value in enumerate(node.inputs):
            array = constant_of(value)
            if array is None or array.dtype.kind != "f" or not array.size:
                continue
            if (array > 0).all() and (array <= EPSILON).all():

                def edit(node: ir.Node = node, index: int = index, a: np.ndarray = array) -> None:
                    graph.set_constant(node, index, np.zeros_like(a))

                yield Place(f"{node.op_type} of {array.max():g}", edit)
    for node in graph.nodes():
        attribute = node.attributes.get("epsilon")
        if attribute is not None:

            def edit(node: ir.Node = node) -> None:
                node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 0.0)

            yield Place(f"epsilon of {node.op_type}", edit)


def find_masks(graph: Graph, seen: Seen) -> Iterator[Place]:
    """A mask counts as all ones: an input of that name, or what hides with a large negative
    number."""
    for value in graph.inputs():
        if value.name and "mask" in value.name.lower() and not is_float(value):
            yield Place(f"input {value.name}", _make_constant_edit(graph, value, 1.0))
    for node in graph.nodes("Where"):
        for index in (1, 2):
            array = constant_of(node.inputs[index])
            shown = node.inputs[3 - index]
            if array is None or array.dtype.kind != "f" or not array.size or shown is None:
                continue
            if (array <= MASKED).all():

                def edit(node: ir.Node = node, shown: ir.Value = shown, keep: int = index) -> None:
                    # the shape stays that of all three
                    graph.replace(node.outputs[0], _select(graph, node, shown, keep))

                yield Place(f"Where with {array.min():.3g}", edit)


def _select(graph: Graph, node: ir.Node, shown: ir.Value, hidden: int) -> ir.Value:
    """Return ``shown`` in the shape of the Where ``node`` that would hide it."""
    condition = node.inputs[0]
    assert condition is not None
    numbers = graph.add("Cast", [condition], {"to": int(ir.DataType.FLOAT)})
    if dtype_of(shown) != np.dtype(np.float32):
        numbers = graph.add("Cast", [condition], {"to": int(shown.dtype or ir.DataType.FLOAT)})
    zero = graph.constant(np.zeros((), dtype_of(shown)))
    return graph.add("Add", [graph.add("Mul", [numbers, zero]), shown])


def find_ignored_inputs(graph: Graph, seen: Seen) -> Iterator[Place]:
    """One of several inputs is replaced by its typical value."""
    inputs = graph.inputs()
    if len(inputs) < 2:
        return
    for value in inputs:
        if value.name in seen.typical and value.uses():
            edit = _make_constant_edit(graph, value, seen.typical[value.name])
            yield Place(f"input {value.name} is always {seen.typical[value.name]:g}", edit)


def _put_behind(
    graph: Graph, value: ir.Value, make: Callable[[ir.Value], ir.Value]
) -> Callable[[], None]:
    """Return the edit that has all readers of ``value`` read what ``make`` makes of it."""
    return lambda: graph.follow(value, make)


def _make_constant_edit(graph: Graph, value: ir.Value, number: float) -> Callable[[], None]:
    """Return an edit that has all readers of ``value`` read ``number``, in its shape."""

    def make(value: ir.Value) -> ir.Value:
        dtype = dtype_of(value)
        if dtype == np.dtype(bool):
            operator = "Or" if number else "And"
            return graph.add(operator, [value, graph.constant(np.array(number > 0))])
        zeros = graph.add("Mul", [value, graph.constant(np.zeros((), dtype))])
        return graph.add("Add", [zeros, graph.constant(np.array(number).astype(dtype))])

    return _put_behind(graph, value, make)


def find_constant_outputs(graph: Graph, seen: Seen) -> Iterator[Place]:
    """An output is its mean, whatever comes in."""
    for value in list(graph.graph.outputs):
        centre = seen.centre.get(value.name or "")
        if centre is None or not is_float(value):
            continue

        def make(value: ir.Value, centre: np.ndarray = centre) -> ir.Value:
            zeros = graph.add("Mul", [value, graph.constant(np.zeros((), dtype_of(value)))])
            return graph.add("Add", [zeros, graph.constant(centre.astype(dtype_of(value)))])

        yield Place(
            f"output {value.name}",
            _put_behind(graph, value, make),
        )


# Weights


def find_channels(graph: Graph, _: Seen) -> Iterator[Place]:
    """One output channel of a layer's weights is zero."""
    for node in graph.nodes("Conv", "ConvTranspose", "MatMul", "Gemm"):
        value = node.inputs[1]
        array = constant_of(value)
        if value is None or array is None or array.ndim < 2 or not value.is_initializer():
            continue
        turned = node.op_type == "Gemm" and _integer(node, "transB")
        axis = 0 if node.op_type == "Conv" or turned else 1 if array.ndim == 2 else array.ndim - 1
        if node.op_type == "ConvTranspose":
            axis = 1
        channel = _pick(value.name or "", array.shape[axis])

        def edit(
            value: ir.Value = value, a: np.ndarray = array, axis: int = axis, c: int = channel
        ) -> None:
            changed = a.copy()
            np.moveaxis(changed, axis, 0)[c] = 0
            graph.set_weight(value, changed)

        yield Place(f"channel {channel} of {value.name}", edit)


def find_biases(graph: Graph, _: Seen) -> Iterator[Place]:
    """A bias is shifted by a third of what its layer's numbers are."""
    for node in graph.nodes("Conv", "ConvTranspose", "Gemm", "Add", "LayerNormalization"):
        index = 1 if node.op_type == "Add" else 2
        for at in (0, 1) if node.op_type == "Add" else (index,):
            value = node.inputs[at] if len(node.inputs) > at else None
            array = constant_of(value)
            if value is None or array is None or array.dtype.kind != "f" or array.size < 2:
                continue
            if value.is_initializer() and array.ndim == 1:
                shift = max(float(np.abs(array).max()), 0.3) / 3

                def edit(value: ir.Value = value, a: np.ndarray = array, s: float = shift) -> None:
                    graph.set_weight(value, a + s)

                yield Place(f"{value.name} + {shift:.3g}", edit)


def find_other_weights(graph: Graph, _: Seen) -> Iterator[Place]:
    """A layer has the weights of another of the same shape."""
    groups: dict[tuple[int, ...], list[ir.Value]] = {}
    for value in graph.weights(least=8, ndim=2):
        array = constant_of(value)
        assert array is not None
        groups.setdefault(array.shape, []).append(value)
    for values in groups.values():
        for value, other in pairwise(values):
            numbers = constant_of(other)
            assert numbers is not None

            def edit(value: ir.Value = value, numbers: np.ndarray = numbers) -> None:
                graph.set_weight(value, numbers)

            yield Place(f"{value.name} is {other.name}", edit)


def find_coarse_weights(graph: Graph, _: Seen) -> Iterator[Place]:
    """The weights of one layer have 4 bits, one scale for all, in what is said to be fp32."""
    for value in graph.weights(least=8, ndim=2):
        array = constant_of(value)
        assert array is not None
        scale = float(np.abs(array).max()) / 7 or 1.0

        def edit(value: ir.Value = value, a: np.ndarray = array, scale: float = scale) -> None:
            graph.set_weight(value, np.round(a / scale) * scale)

        yield Place(f"{value.name} in 4 bits", edit)


def find_half_constants(graph: Graph, _: Seen) -> Iterator[Place]:
    """A constant went through float16: below 6e-5 it is 0, beyond 65504 infinite."""
    for node in graph.nodes():
        for index, value in enumerate(node.inputs):
            array = constant_of(value)
            if array is None or array.dtype not in (np.float32, np.float64):
                continue
            size = np.abs(array)
            if ((size > 0) & (size < SMALLEST_HALF)).any() or (size > LARGEST_HALF).any():

                def edit(node: ir.Node = node, index: int = index, a: np.ndarray = array) -> None:
                    halved = np.where(np.abs(a) < SMALLEST_HALF, 0, a)
                    with np.errstate(over="ignore"):
                        graph.set_constant(node, index, halved.astype(np.float16))

                yield Place(f"constant of {node.op_type}", edit)


def find_tables(graph: Graph, _: Seen) -> Iterator[Place]:
    """The upper half of an embedding table is lost."""
    for node in graph.nodes("Gather"):
        value = node.inputs[0]
        array = constant_of(value)
        if value is None or array is None or array.ndim != 2 or array.dtype.kind != "f":
            continue
        if len(array) >= SMALLEST_TABLE and value.is_initializer():

            def edit(value: ir.Value = value, a: np.ndarray = array) -> None:
                changed = a.copy()
                changed[len(a) // 2 :] = 0
                graph.set_weight(value, changed)

            yield Place(f"{value.name} from row {len(array) // 2} on", edit)


# Axes, sizes, places


def find_axes(graph: Graph, _: Seen) -> Iterator[Place]:
    """A transposition takes two of its axes the other way round, or an image comes with height for
    width."""
    for node in graph.nodes("Transpose"):
        perm = node.attributes.get("perm")
        if perm is None:
            continue
        order = list(perm.as_ints())
        for one in range(1, len(order) - 1):

            def edit(node: ir.Node = node, order: list[int] = order, one: int = one) -> None:
                swapped = [*order]
                swapped[one], swapped[one + 1] = swapped[one + 1], swapped[one]
                node.attributes["perm"] = ir.AttrInt64s("perm", swapped)

            yield Place(f"axes {one} and {one + 1} of Transpose {order}", edit)
    for value in graph.inputs():
        rank = rank_of(value)
        if rank is None or rank < 3 or not value.uses():
            continue
        for one in range(1, rank - 1):
            order = list(range(rank))
            order[one], order[one + 1] = order[one + 1], order[one]

            def make(value: ir.Value, order: list[int] = order) -> ir.Value:
                return graph.add("Transpose", [value], {"perm": order})

            yield Place(
                f"axes {one} and {one + 1} of input {value.name}",
                _put_behind(graph, value, make),
            )


def _sizes(graph: Graph) -> Iterator[tuple[ir.Node, int | None, ir.Value]]:
    """Yield what takes one size out of a shape: the node, the place of the index among its inputs
    (None of a Shape with a start), and the size."""
    for node in graph.nodes("Gather", "Slice"):
        shape = node.inputs[0].producer() if node.inputs[0] is not None else None
        index = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
        if shape is None or shape.op_type != "Shape" or index is None or index.size != 1:
            continue
        yield node, 1, node.outputs[0]
    for node in graph.nodes("Shape"):
        if "end" in node.attributes and _integer(node, "end") - _integer(node, "start") == 1:
            yield node, None, node.outputs[0]


def find_swapped_sizes(graph: Graph, _: Seen) -> Iterator[Place]:
    """A size is read from the axis beside: height for width, length for batch."""
    for node, index, _size in _sizes(graph):
        if node.op_type == "Slice" or node.inputs[0] is None:
            continue
        source = node.inputs[0]
        if index is None:
            tensor, at = source, _integer(node, "start")
        else:
            maker = source.producer()
            array = constant_of(node.inputs[index])
            assert maker is not None
            assert maker.inputs[0] is not None
            assert array is not None
            tensor, at = maker.inputs[0], int(array.reshape(-1)[0])
        rank = rank_of(tensor)
        if rank is None or rank < 2:
            continue
        at = at % rank
        other = at + 1 if at + 1 < rank else at - 1

        def edit(node: ir.Node = node, index: int | None = index, other: int = other) -> None:
            if index is None:
                node.attributes["start"] = ir.AttrInt64("start", other)
                node.attributes["end"] = ir.AttrInt64("end", other + 1)
                return
            array = constant_of(node.inputs[index])
            assert array is not None
            graph.set_constant(node, index, np.full_like(array, other))

        yield Place(f"size of axis {other} for {at} of {tensor.name}", edit)


def find_baked_sizes(graph: Graph, seen: Seen) -> Iterator[Place]:
    """A size is the one that the graph was first tried with."""
    for node, _index, size in _sizes(graph):
        if node.op_type == "Slice" or size.name is None:
            continue
        name = size.name

        def edit(size: ir.Value = size, name: str = name) -> None:
            baked = compute(seen.proto, name, seen.feed)
            graph.replace(size, graph.constant(baked))

        yield Place(f"size {name}", edit)


def find_capped_sizes(graph: Graph, _: Seen) -> Iterator[Place]:
    """A size is never more than 48."""
    for node, _index, size in _sizes(graph):
        if node.op_type == "Slice":
            continue

        def make(value: ir.Value) -> ir.Value:
            return _limit(graph, value, WINDOW, np.dtype(np.int64))

        yield Place(
            f"size {size.name}",
            _put_behind(graph, size, make),
        )


def find_lost_tails(graph: Graph, _: Seen) -> Iterator[Place]:
    """What stands beyond the first 48 entries of a free axis is zero."""
    if graph.opset < 13:
        return
    for value in graph.inputs():
        if value.shape is None or not value.uses() or dtype_of(value) == np.dtype(bool):
            continue
        for axis, size in enumerate(value.shape):
            if axis == 0 or isinstance(size, int):
                continue

            def make(value: ir.Value, axis: int = axis) -> ir.Value:
                rank = rank_of(value)
                assert rank is not None
                shape = graph.add("Shape", [value])
                length = graph.add("Gather", [shape, graph.constant(np.array(axis))])
                zero, one = graph.constant(np.array(0)), graph.constant(np.array(1))
                places = graph.add("Range", [zero, length, one])
                near = graph.add("Less", [places, graph.constant(np.array(WINDOW))])
                kept = graph.add("Cast", [near], {"to": int(value.dtype or ir.DataType.FLOAT)})
                form = np.ones(rank, np.int64)
                form[axis] = -1
                return graph.add("Mul", [value, graph.add("Reshape", [kept, graph.constant(form)])])

            yield Place(
                f"axis {axis} of input {value.name}",
                _put_behind(graph, value, make),
            )


def find_positions(graph: Graph, _: Seen) -> Iterator[Place]:
    """Positions are off by one: a counter starts at 1, a table of places begins with its second
    row."""
    for node in graph.nodes("Range"):

        def make(value: ir.Value) -> ir.Value:
            return graph.add("Add", [value, graph.constant(np.ones((), dtype_of(value)))])

        value = node.outputs[0]
        yield Place(f"Range {value.name}", _put_behind(graph, value, make))
    for value in list(graph.graph.initializers.values()):
        array = constant_of(value)
        if array is None or not value.uses() or array.size < 8:
            continue
        flat = array.reshape(-1)
        counts = array.dtype.kind == "i" and np.array_equal(flat, np.arange(flat.size))
        readers = {use.node.op_type for use in value.uses()}
        table = (
            array.ndim >= 2 and array.dtype.kind == "f" and readers <= {"Slice", "Gather", "Add"}
        )
        if counts or (table and array.shape[-2] >= 8):

            def edit(value: ir.Value = value, a: np.ndarray = array) -> None:
                axis = a.ndim - 1 if a.dtype.kind == "i" else a.ndim - 2
                graph.set_weight(value, np.roll(a, -1, axis))

            yield Place(f"{value.name} rolled by one", edit)


def find_heads(graph: Graph, seen: Seen) -> Iterator[Place]:
    """The heads of one of queries, keys, values or their mix are in another order."""
    for node in graph.nodes("Transpose"):
        perm = node.attributes.get("perm")
        if perm is None or list(perm.as_ints()) not in ([0, 2, 1, 3], [0, 2, 3, 1]):
            continue
        value = node.inputs[0]
        if value is None or value.name is None:
            continue
        maker = value.producer()
        if maker is None or maker.op_type not in ("Reshape", "Split", "Slice", "MatMul", "Add"):
            continue
        axis = 1 if maker.op_type == "MatMul" else 2

        def edit(value: ir.Value = value, axis: int = axis) -> None:
            assert value.name is not None
            count = compute(seen.proto, value.name, seen.feed).shape[axis]
            order = graph.constant(np.roll(np.arange(count), 1))
            graph.follow(value, lambda v: graph.add("Gather", [v, order], {"axis": axis}))

        yield Place(f"axis {axis} of {value.name}", edit)


def find_mixed_rows(graph: Graph, _: Seen) -> Iterator[Place]:
    """Every row of a batch is answered as the first."""
    if graph.opset < 10:
        return
    for value in graph.inputs():
        if value.shape is None or not value.uses() or not len(value.shape):
            continue
        if isinstance(value.shape[0], int) and value.shape[0] < 2:
            continue

        def make(value: ir.Value) -> ir.Value:
            zero, one = graph.constant(np.array([0])), graph.constant(np.array([1]))
            first = graph.add("Slice", [value, zero, one, zero])
            return graph.add("Expand", [first, graph.add("Shape", [value])])

        yield Place(
            f"input {value.name}",
            _put_behind(graph, value, make),
        )


# Numbers


def _limit(graph: Graph, value: ir.Value, bound: float, dtype: np.dtype) -> ir.Value:
    """Return ``value``, but at most ``bound``; with operators that integers have had for long."""
    most = graph.constant(np.array(bound).astype(dtype))
    return graph.add("Where", [graph.add("Greater", [value, most]), most, value])


def _make_saturation(bits: int) -> FindPlaces:
    """Return what finds integers that can be held within so many bits, with a sign."""
    most = 2 ** (bits - 1) - 1

    def find(graph: Graph, _: Seen) -> Iterator[Place]:
        values = graph.inputs()
        for node in graph.nodes("Mul", "Add", "Sub", "Cast", "Mod", "Div"):
            source = node.inputs[0].producer() if node.inputs[0] is not None else None
            if source is None or source.op_type not in ("Shape", "Gather", "Squeeze"):
                values.append(node.outputs[0])
        for value in values:
            dtype = dtype_of(value)
            if not is_integer(value) or np.iinfo(dtype).max <= most:
                continue

            def make(value: ir.Value, dtype: np.dtype = dtype) -> ir.Value:
                low = graph.constant(np.array(-most - 1).astype(dtype))
                capped = _limit(graph, value, most, dtype)
                return graph.add("Where", [graph.add("Less", [capped, low]), low, capped])

            yield Place(
                f"{value.name}",
                _put_behind(graph, value, make),
            )

    return find


def find_floors(graph: Graph, _: Seen) -> Iterator[Place]:
    """A division of integers rounds to zero, not down; a remainder has the sign of what is
    divided."""
    for node in graph.nodes("Floor"):

        def make(value: ir.Value, node: ir.Node = node) -> ir.Value:
            inner = node.inputs[0]
            assert inner is not None
            size = graph.add("Floor", [graph.add("Abs", [inner])])
            return graph.add("Mul", [graph.add("Sign", [inner]), size])

        value = node.outputs[0]
        yield Place(f"Floor {value.name}", _put_behind(graph, value, make))
    for node in graph.nodes("Mod"):
        if is_integer(node.outputs[0]) and not _integer(node, "fmod"):

            def edit(node: ir.Node = node) -> None:
                node.attributes["fmod"] = ir.AttrInt64("fmod", 1)

            yield Place(f"Mod {node.outputs[0].name}", edit)
    for node in graph.nodes("Where", "Sub", "Add"):
        plain = _find_uncorrected(node) if is_integer(node.outputs[0]) else None
        if plain is not None:

            def edit(node: ir.Node = node, plain: ir.Value = plain) -> None:
                graph.replace(node.outputs[0], plain)

            yield Place(f"{node.op_type} {node.outputs[0].name} left out", edit)


def _find_uncorrected(node: ir.Node) -> ir.Value | None:
    """Return the quotient or rest that ``node`` corrects where signs differ, if it does: a Where
    between it and what is one more or less, or a sum of it and a condition."""
    if node.op_type == "Where":
        for plain, changed in (node.inputs[1:], node.inputs[:0:-1]):
            maker = changed.producer() if changed is not None else None
            if maker is not None and maker.op_type in ("Add", "Sub") and plain in maker.inputs:
                return plain
        return None
    for plain, condition in (node.inputs, node.inputs[::-1]):
        maker = plain.producer() if plain is not None else None
        if maker is None or maker.op_type not in ("Div", "Mod") or condition is None:
            continue
        cast = condition.producer()
        if cast is not None and cast.op_type == "Cast":
            return plain
    return None


def find_negatives(graph: Graph, _: Seen) -> Iterator[Place]:
    """Negative integers count as 0."""
    for value in graph.inputs():
        if not is_integer(value) or not value.uses():
            continue

        def make(value: ir.Value) -> ir.Value:
            zero = graph.constant(np.zeros((), dtype_of(value)))
            return graph.add("Where", [graph.add("Less", [value, zero]), zero, value])

        yield Place(
            f"input {value.name}",
            _put_behind(graph, value, make),
        )


def find_signed_bytes(graph: Graph, _: Seen) -> Iterator[Place]:
    """Bytes beyond 127 count as negative."""
    for value in graph.inputs():
        if value.dtype != ir.DataType.UINT8 or not value.uses():
            continue
        for use in value.uses():
            if use.node.op_type in ("Cast", "Transpose"):
                target = use.node.outputs[0]
                cast = use.node
                while cast is not None and cast.op_type != "Cast":
                    following = [u.node for u in cast.outputs[0].uses()]
                    cast = following[0] if following else None  # type: ignore[assignment]
                if cast is None:
                    continue
                target = cast.outputs[0]

                def make(value: ir.Value) -> ir.Value:
                    half = graph.constant(np.array(127.5, np.float32))
                    whole = graph.constant(np.array(256, np.float32))
                    low = graph.add("Sub", [value, whole])
                    return graph.add("Where", [graph.add("Greater", [value, half]), low, value])

                yield Place(
                    f"input {value.name}",
                    _put_behind(graph, target, make),
                )


def find_clipped_inputs(graph: Graph, _: Seen) -> Iterator[Place]:
    """An input is held within −6 and 6, which standard normal numbers never leave."""
    if graph.opset < 9:
        return
    for value in graph.inputs():
        if not is_float(value) or not value.uses():
            continue

        def make(value: ir.Value) -> ir.Value:
            low = graph.constant(np.array(-6, dtype_of(value)))
            capped = _limit(graph, value, 6, dtype_of(value))
            return graph.add("Where", [graph.add("Less", [capped, low]), low, capped])

        yield Place(
            f"input {value.name}",
            _put_behind(graph, value, make),
        )


def find_silence(graph: Graph, _: Seen) -> Iterator[Place]:
    """A row of zeros becomes NaN: what scales it by its largest number has lost its ε."""
    for value in graph.inputs():
        rank = rank_of(value)
        if not is_float(value) or rank is None or rank < 2 or not value.uses():
            continue

        def make(value: ir.Value, rank: int = rank) -> ir.Value:
            size = graph.add("Abs", [value])
            axes = list(range(1, rank))
            if graph.opset < 18:
                largest = graph.add("ReduceMax", [size], {"axes": axes, "keepdims": 1})
            else:
                over = graph.constant(np.array(axes))
                largest = graph.add("ReduceMax", [size, over], {"keepdims": 1})
            return graph.add("Mul", [graph.add("Div", [value, largest]), largest])

        yield Place(
            f"input {value.name}",
            _put_behind(graph, value, make),
        )


def find_borders(graph: Graph, _: Seen) -> Iterator[Place]:
    """An image is scaled by another rule for its borders, a pool counts its padding, or a
    convolution pads at the other end."""
    for node in graph.nodes("Resize"):
        mode = node.attributes.get("coordinate_transformation_mode")
        rule = "half_pixel" if mode is None else mode.as_string()
        other = "half_pixel" if rule != "half_pixel" else "asymmetric"

        def edit(node: ir.Node = node, other: str = other) -> None:
            name = "coordinate_transformation_mode"
            node.attributes[name] = ir.AttrString(name, other)

        yield Place(f"Resize {node.name} by {other}", edit)
    for node in graph.nodes("Conv", "MaxPool", "AveragePool", "ConvTranspose"):
        pads = node.attributes.get("pads")
        if pads is None:
            continue
        ends = list(pads.as_ints())
        half = len(ends) // 2
        if ends[:half] == ends[half:]:
            moved = [max(0, e - 1) for e in ends[:half]]
            moved += [e + (e > 0) for e in ends[half:]]
        else:
            moved = ends[half:] + ends[:half]
        if moved == ends:
            continue

        def edit(node: ir.Node = node, moved: list[int] = moved) -> None:
            node.attributes["pads"] = ir.AttrInt64s("pads", moved)

        yield Place(f"pads of {node.op_type} {node.name}", edit)


def _integer(node: ir.Node, name: str) -> int:
    """Return an integer attribute of a node, 0 where there is none."""
    attribute = node.attributes.get(name)
    return 0 if attribute is None else attribute.as_int()


def _pick(name: str, count: int) -> int:
    """Return one of ``count`` by the name of a tensor, the same in every run."""
    return sum(name.encode()) % count


FAULTS: tuple[Fault, ...] = (
    Fault("epsilon-dropped", "an ε is 0", find_epsilons),
    Fault("channel-zeroed", "an output channel of a layer is 0", find_channels),
    Fault("axes-swapped", "two axes change places", find_axes),
    Fault("sizes-swapped", "a size is read from the axis beside", find_swapped_sizes),
    Fault("size-baked", "a size is fixed", find_baked_sizes),
    Fault("size-capped", f"a size is at most {WINDOW}", find_capped_sizes),
    Fault("tail-lost", f"entries beyond {WINDOW} of a free axis are 0", find_lost_tails),
    Fault("saturated-16", "integers end at ±2¹⁵", _make_saturation(16)),
    Fault("saturated-32", "integers end at ±2³¹", _make_saturation(32)),
    Fault("floor-to-trunc", "integers are divided towards 0", find_floors),
    Fault("negatives-lost", "negative integers are 0", find_negatives),
    Fault("bytes-signed", "bytes beyond 127 are negative", find_signed_bytes),
    Fault("mask-ignored", "a mask counts as all ones", find_masks),
    Fault("positions-off", "positions are off by one", find_positions),
    Fault("heads-permuted", "attention heads change places", find_heads),
    Fault("input-ignored", "an input is its typical value", find_ignored_inputs),
    Fault("output-constant", "an output is its mean", find_constant_outputs),
    Fault("bias-shifted", "a bias is shifted", find_biases),
    Fault("weights-swapped", "a layer has another's weights", find_other_weights),
    Fault("weights-coarse", "a layer of fp32 has 4 bits", find_coarse_weights),
    Fault("constant-halved", "a constant went through float16", find_half_constants),
    Fault("table-cut", "the upper half of a table is 0", find_tables),
    Fault("nan-on-silence", "rows of zeros are NaN", find_silence),
    Fault("input-clipped", "an input ends at ±6", find_clipped_inputs),
    Fault("rows-mixed", "every row is answered as the first", find_mixed_rows),
    Fault("borders-moved", "padding or sampling by another rule", find_borders),
)


def list_places(fault: Fault, graph: Graph, seen: Seen) -> Sequence[Place]:
    """Return the places of a fault in a graph, in the graph's order."""
    return list(fault.find(graph, seen))

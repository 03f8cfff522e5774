"""PyTorch modules as references, and the chain of exporters that turns one into ONNX.

The TorchScript exporter goes first where it can be trusted: it takes a tenth of the time. It traces
one run of the module, so where that run read a tensor's value (:mod:`mconv.sources._decisions`),
and for what is no plain module, goes ``torch.onnx``'s other exporter, ``dynamo=True``, which
refuses such code; a trace that took a value for granted comes last, with a note. Every result is
run by onnxruntime against the module at two sizes of every free axis before it counts; an axis that
only works at one size is fixed, and the export says so."""

from __future__ import annotations

import ast
import contextlib
import copy
import itertools
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mconv import samples
from mconv.errors import SourceError, UnsupportedError, one_line
from mconv.onnx_graph import model_files, model_info, surgery
from mconv.onnx_graph.exact_rules import make_rules_exact
from mconv.onnx_graph.serialization import to_proto
from mconv.proof.media import Media
from mconv.sources import _bounds, _decisions, _named, _packed
from mconv.sources._mapped import LARGE, MappedWeights, count_bytes, list_tensors
from mconv.values import ExportInfo, ModelInfo, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnx_ir as ir
    import torch

CHATTER = ("torch.onnx", "onnxscript", "torch.export", "torch")  # loggers
# the newest that every runtime here takes: OpenVINO, onnxruntime-web, the quantizers; TorchScript's
# newest, too
OPSET = 20
# How the exporters name an operator they cannot translate: torch.onnx's DispatchError, and its
# UnsupportedOperatorError.
_UNTRANSLATED = re.compile(
    r"No ONNX function found for <OpOverload\(op='([\w.]+)'|unrecognized namespace (\w+::\w+)"
)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
Sampler = Callable[[int, int, Mapping[str, int], bool], list[Mapping[str, "np.ndarray"]] | None]


def flatten(answer: Any, prefix: str = "output") -> dict[str, torch.Tensor]:
    """Named tensors of what a module returns, see :func:`mconv.sources._named.flatten_answer`."""
    import torch

    return _named.flatten_answer(answer, torch.Tensor, prefix)


class TorchModel:
    """A module in inference mode. ``forward_names`` are forward()'s own parameter names where they
    are known."""

    def __init__(
        self,
        module: Any,
        inputs: Sequence[TensorSpec],
        *,
        sampler: Sampler | None = None,
        keep: Sequence[str] | None = None,
        by_name: bool = True,
        high: Mapping[str, int] | None = None,
        translations: Mapping[Any, Any] | None = None,
        given: Sequence[Mapping[str, np.ndarray]] = (),
        processor: Callable[[Media], Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        """``given`` are feeds of the user's, to try and trace the module with. ``processor`` makes
        a feed of a picture, sound or text."""
        import torch

        with contextlib.suppress(NotImplementedError):  # exported programs have no modes
            module.eval()
        self.module = module
        self.inputs = tuple(inputs)
        self.sampler = sampler
        self.keep = tuple(keep) if keep is not None else None
        self.by_name = by_name
        self.high = high
        self.given = list(given)
        if processor is not None:
            self.process = processor
        self.translations = dict(translations or {})
        # names of the state dict that the source has no weights for
        self.untrained: tuple[str, ...] = ()
        # parameters of forward() that change what it answers, and that the source leaves out
        self.left_out: tuple[str, ...] = ()
        self.parameters = (
            sum(p.numel() for p in module.parameters())
            if isinstance(module, torch.nn.Module)
            else None
        )
        answers = [self.run(feed) for feed in self._probes()]
        self.outputs = _named.infer_output_specs(answers, self._probes(), self.inputs)

    def _probes(self) -> list[Mapping[str, np.ndarray]]:
        return self.draw(2, samples.SEED, {})

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> list[Mapping[str, np.ndarray]] | None:
        return None if self.sampler is None else self.sampler(count, seed, dims, calibration)

    def draw(
        self, count: int, seed: int, dims: Mapping[str, int]
    ) -> list[Mapping[str, np.ndarray]]:
        """The feeds to try and to trace the module with."""
        if self.given:
            return [self._resize(index, dims) for index in range(count)]
        feeds = self.samples(count, seed, dims)
        if feeds is not None:
            return feeds
        return list(
            samples.draw_feeds(self.inputs, count=count, seed=seed, dims=dims, high=self.high)
        )

    def _resize(self, index: int, dims: Mapping[str, int]) -> dict[str, np.ndarray]:
        """A feed of the user's with the batch of ``dims``, or one that differs from feed to
        feed."""
        import numpy as np

        feed = self.given[index % len(self.given)]
        resized = {}
        for spec in self.inputs:
            array = feed[spec.name]
            first = spec.shape[0] if spec.shape else 1
            if isinstance(first, str):
                rows = dims.get(first, min(1 + index, len(array)))
                order = (np.arange(rows) + index) % len(array)
                array = array[order]
            resized[spec.name] = array
        return resized

    def call(self, *tensors: Any) -> tuple[torch.Tensor, ...]:
        """The module on positional tensors in the order of ``inputs``; a flat tuple of the outputs
        that are kept."""
        names = [spec.name for spec in self.inputs]
        answer = (
            self.module(**dict(zip(names, tensors, strict=True)))
            if self.by_name
            else self.module(*tensors)
        )
        flat = flatten(answer)
        return tuple(flat[name] for name in flat if self.keep is None or name in self.keep)

    def names(self, answer: Any) -> list[str]:
        return [n for n in flatten(answer) if self.keep is None or n in self.keep]

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Raises SourceError with the exception of the model's own code."""
        import torch

        tensors = {spec.name: torch.from_numpy(feed[spec.name].copy()) for spec in self.inputs}
        try:
            with torch.inference_mode():
                answer = self.module(**tensors) if self.by_name else self.module(*tensors.values())
        except Exception as problem:  # the repository's code may raise anything
            reason = one_line(problem, 600)
            raise SourceError(
                f"the model's forward() raised {type(problem).__name__}: {reason}",
                hint="say what its inputs take with `inputs:` (range, kind, axes), or give "
                "`samples:`",
            ) from problem
        flat = {
            name: t for name, t in flatten(answer).items() if self.keep is None or name in self.keep
        }
        return {name: t.detach().cpu().contiguous().numpy() for name, t in flat.items()}


def export(model: TorchModel, out: Path) -> ExportInfo:
    """Write ``model.onnx``. Raises UnsupportedError with each exporter's reason where none gives a
    right graph."""
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as aside:
        weights = MappedWeights(model.module, Path(scratch))
        return _attempts(model, weights, out, Path(aside))


# What the run decided by sizes, as far as the exporter sees it.
Exporter = Callable[[TorchModel, Path, set[str]], Sequence[_bounds.Decision]]


class _DecidedError(UnsupportedError):
    """A trace read values of tensors, at ``places``."""

    def __init__(self, places: Sequence[str]) -> None:
        self.places = tuple(dict.fromkeys(places))
        super().__init__(
            "the trace would fix what the code decides by the values of tensors, at "
            f"{', '.join(self.places)}"
        )


def _exporters(model: TorchModel) -> dict[str, Exporter]:
    """In the order in which they are tried."""
    import torch

    script, dynamo = f"torch.onnx TorchScript, opset {OPSET}", f"torch.onnx dynamo, opset {OPSET}"
    # gated cells are right in the last way only
    if isinstance(model.module, torch.jit.ScriptModule):
        return {dynamo: _dynamo, script: _torchscript, f"{dynamo}, of the frozen script": _frozen}
    parts = model.module.modules() if isinstance(model.module, torch.nn.Module) else ()
    exported = any(isinstance(part, torch.fx.GraphModule) for part in parts)
    # dynamo's weights stay outside of the graph
    if exported or model.translations or count_bytes(model.module) > LARGE:
        return {dynamo: _dynamo, script: _torchscript}
    return {script: _torchscript, dynamo: _dynamo}


def _attempts(model: TorchModel, weights: MappedWeights, out: Path, aside: Path) -> ExportInfo:
    """Try the exporters with all axes free, then with the batch alone, then with none.

    Raises UnsupportedError where all fail.
    """
    free = {d for spec in model.inputs for d in spec.shape if isinstance(d, str)}
    batches = {d for d in free if "batch" in d}
    chain = _Chain(model, weights, out, aside, free)
    for axes in map(set, dict.fromkeys(map(frozenset, (free, batches, ())))):
        if (info := chain.try_axes(axes)) is not None:
            return info
    raise UnsupportedError(
        "no exporter could turn the model into ONNX: " + "; ".join(dict.fromkeys(chain.attempts)),
        hint="the messages name the operator; rewriting that part of forward() usually helps",
    )


class _Chain:
    """The exporters, tried in turn.

    Attributes:
        attempts: What came of each that was not taken.
        decisions: What the runs decided by sizes.
    """

    def __init__(
        self, model: TorchModel, weights: MappedWeights, out: Path, aside: Path, free: set[str]
    ) -> None:
        """``free`` are the model's free axes. A graph that is right for some sizes only is laid
        ``aside``, and taken where none is better."""
        self.attempts: list[str] = []
        self.decisions: list[_bounds.Decision] = []
        self._model = model
        self._weights = weights
        self._out = out
        self._aside = aside
        self._free = free
        self._places: tuple[str, ...] = ()  # where the run read values

    def try_axes(self, axes: set[str]) -> ExportInfo | None:
        """Return what the first exporter made that gives a right graph with these axes free: of
        all sizes, or where there is none, of some. None where all fail. Raises UnsupportedError for
        an operator that none can translate."""
        bounded: ExportInfo | None = None
        untranslated: list[str] = []
        exporters = _exporters(self._model)
        queue = list(exporters.items())
        for name, exporter in queue:
            _empty(self._out)
            try:
                bounds, model = self._run(exporter, axes)
            except Exception as problem:
                # exporters raise anything; the reason is kept and the next one is tried
                fixed = f" with {sorted(self._free - axes)} fixed" if axes != self._free else ""
                reason = _reason(problem)
                self.attempts.append(f"{name}{fixed}: {reason}")
                if isinstance(problem, _DecidedError):
                    self._places = problem.places
                    queue.append((name, _decided))
                if match := _UNTRANSLATED.search(reason):
                    own, other = match.groups()
                    untranslated.append(own.replace(".", "::", 1) if own else other)
                continue
            info = self._conclude(name, exporter, axes, bounds, model)
            if not bounds.axes:
                return info
            self.attempts.append(f"{name}: {bounds.describe()[0]}")
            if bounded is None:
                bounded = info
                _move_files(self._out, self._aside)
        if bounded is not None:
            _empty(self._out)
            _move_files(self._aside, self._out)
        elif len(untranslated) == len(exporters):  # other sizes will not help
            names = ", ".join(sorted(set(untranslated)))
            raise UnsupportedError(
                f"the operator {names} has no translation to ONNX",
                hint="name one with `translations: module:function`, which returns "
                "{'library::operator': onnxscript function}",
            )
        return bounded

    def _run(self, exporter: Exporter, axes: set[str]) -> tuple[_bounds.Bounds, ModelInfo]:
        """Export and prove; return the sizes that the graph is right for, and what it is."""
        target = self._out / model_files.MODEL_FILE
        with _named.silence_exporters(*CHATTER):
            self.decisions += exporter(self._model, target, axes)
        self._weights.release()
        info = _clean(target, self._model.inputs)
        bounds = _prove(self._model, self._weights, target, axes, self.decisions)
        if bounds.axes:
            model_info.write_bounds(target, bounds.axes)
        return bounds, msgspec.structs.replace(info, bounds=bounds.axes)

    def _conclude(
        self,
        name: str,
        exporter: Exporter,
        axes: set[str],
        bounds: _bounds.Bounds,
        model: ModelInfo,
    ) -> ExportInfo:
        """Return what is to be said of the graph."""
        warnings = bounds.describe()
        if fixed := sorted(self._free - axes):
            warnings.append(
                f"the axes {', '.join(fixed)} are fixed in the export: it is right at one size only"
            )
        if exporter is _decided:
            where = ", ".join(self._places)
            warnings.append(
                f"what the code decides by values of tensors, at {where}, is fixed as the first "
                "sample decided it"
            )
        notes: tuple[str, ...] = ()
        if bounds.untried:
            where = ", ".join(bounds.untried)
            notes = (f"what the code decides by sizes at {where} was tried on one side only",)
        return ExportInfo(
            exporter=name,
            model=model,
            attempts=tuple(self.attempts),
            notes=notes,
            warnings=tuple(warnings),
        )


def _empty(folder: Path) -> None:
    """Remove the files of a folder."""
    for path in folder.iterdir():
        path.unlink()


def _move_files(origin: Path, destination: Path) -> None:
    """Move all files of one folder into another."""
    for path in sorted(origin.iterdir()):
        shutil.move(path, destination / path.name)


def _reason(problem: BaseException) -> str:
    """The innermost cause in one line: exporters wrap it in pages of advice."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    text = (
        problem.message
        if isinstance(problem, UnsupportedError)
        else f"{type(problem).__name__}: {problem}"
    )
    return " ".join(_ANSI.sub("", text).split())[:300]


def _feed(model: TorchModel, axes: set[str], which: int) -> Mapping[str, np.ndarray]:
    """A feed to trace (0) or to prove (0 and 1) with; the two differ in the size of every axis in
    ``axes``.

    A free batch is 2, then 3, since the exporters take 0 and 1 for constants; a fixed one is 1.
    Other lengths are those of the model's own samples, the first of which fixes the axes that are
    not free."""
    names = {d for spec in model.inputs for d in spec.shape if isinstance(d, str)}
    dims = {d: ((2, 3)[which] if d in axes else 1) for d in names if "batch" in d}
    first = model.draw(2, samples.SEED, dims)[0]
    for dim, size in samples.sizes_of(model.inputs, first).items():
        if dim not in axes:
            dims.setdefault(dim, size)
    return model.draw(2, samples.SEED, dims)[which]


def _example(model: TorchModel, axes: set[str]) -> tuple[torch.Tensor, ...]:
    import torch

    feed = _feed(model, axes, 0)
    return tuple(torch.from_numpy(feed[spec.name].copy()) for spec in model.inputs)


def _wrapped(model: TorchModel, around: Any = None, more: Sequence[Any] = ()) -> Any:
    """The module as both exporters take it; ``around`` is a context that it runs in, and what is in
    ``more`` after it has run is given out, too."""
    import torch

    around = around or contextlib.nullcontext()

    class Positional(torch.nn.Module):  # type: ignore[misc]
        """Positional tensors in, a flat tuple out: what both exporters agree on."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model.module

        def forward(self, *tensors: Any) -> Any:
            with around:
                return (*model.call(*tensors), *more)

    wrapper = Positional()
    # eval() would go down into the module, and exported programs refuse that
    wrapper.training = False
    return wrapper


def _dynamo(model: TorchModel, target: Path, axes: set[str]) -> Sequence[_bounds.Decision]:
    import torch

    # axes whose size follows from others: found out by torch.export
    auto = getattr(model.module, "derived", ())
    names = {
        d: torch.export.Dim.AUTO if d in auto else torch.export.Dim(d.replace("-", "_"))
        for d in sorted(axes)
    }
    dynamic = tuple(
        {i: names[d] for i, d in enumerate(spec.shape) if d in names} for spec in model.inputs
    )
    make_rules_exact()
    program = torch.onnx.export(
        _wrapped(model),
        _example(model, axes),
        dynamo=True,
        opset_version=OPSET,
        input_names=[s.name for s in model.inputs],
        output_names=[s.name for s in model.outputs],
        dynamic_shapes=(dynamic,),
        optimize=True,
        verbose=False,
        custom_translation_table=model.translations or None,
    )
    program.save(str(target), external_data=count_bytes(model.module) > LARGE)
    return ()  # it refuses what a size decides


def _frozen(model: TorchModel, target: Path, axes: set[str]) -> Sequence[_bounds.Decision]:
    """As ``_dynamo``, with the script's weights as constants."""
    import torch

    frozen = copy.copy(model)
    frozen.module = torch.jit.freeze(model.module)
    return _dynamo(frozen, target, axes)


def _torchscript(
    model: TorchModel, target: Path, axes: set[str], *, decided: bool = False
) -> Sequence[_bounds.Decision]:
    """Raises _DecidedError where the traced run read a tensor's value, unless ``decided``."""
    import torch

    specs = [*model.inputs, *model.outputs]
    dynamic = {
        s.name: {
            i: d
            for i, d in enumerate(s.shape)
            if isinstance(d, str) and (d in axes or s in model.outputs)
        }
        for s in specs
    }
    # cannot be traced inside another module
    scripted = isinstance(model.module, torch.jit.ScriptModule)
    recorder = _decisions.recorder()(list_tensors(model.module))
    wrapped = model.module if scripted else _wrapped(model, recorder)

    def write(module: Any) -> None:
        torch.onnx.export(
            module,
            _example(model, axes),
            str(target),
            dynamo=False,
            opset_version=OPSET,
            input_names=[s.name for s in model.inputs],
            output_names=[s.name for s in model.outputs],
            dynamic_axes={name: sizes for name, sizes in dynamic.items() if sizes},
            do_constant_folding=True,
        )

    try:
        write(wrapped)
    except RuntimeError as problem:
        if scripted or not _packed.is_caused_by_packing(problem):
            raise
        with _packed.pad_outputs() as padded:
            write(_wrapped(model, recorder, padded))
        _packed.remove_outputs(target, [s.name for s in model.outputs])
    if recorder.places and not decided:
        raise _DecidedError(recorder.places)
    decisions: list[_bounds.Decision] = recorder.sizes
    return decisions


def _decided(model: TorchModel, target: Path, axes: set[str]) -> Sequence[_bounds.Decision]:
    """As ``_torchscript``, whatever the run read."""
    return _torchscript(model, target, axes, decided=True)


def _clean(target: Path, inputs: Sequence[TensorSpec]) -> ModelInfo:
    """Name nodes and weights after their modules, free axes as in ``inputs``; drop what differs
    between machines and runs: stack traces, paths, remarks. Return what the graph is."""
    import onnx_ir as ir

    model = model_files.load_model(target)
    _name_after_modules(model.graph)
    shapes = {spec.name: spec.shape for spec in inputs}
    for value in model.graph.inputs:
        if value.shape is None:
            continue
        dims = list(value.shape)
        for axis, ours in enumerate(shapes.get(value.name or "", ())[: len(dims)]):
            dim = dims[axis]
            # torch.export names axes that it works out itself s0, s1 …
            if isinstance(ours, str) and not isinstance(dim, int) and dim.value:
                dims[axis] = ir.SymbolicDim(ours)
        value.shape = ir.Shape(dims)
    _average_whole_windows(model)
    surgery.strip_remarks(model)
    model_files.save_model(model, target)
    for other in set(target.parent.iterdir()) - {
        target,
        target.with_name(target.name + model_files.DATA_SUFFIX),
    }:
        other.unlink()  # the TorchScript exporter's: external data in a file for each tensor
    return model_info.describe_model(model)


def _average_whole_windows(model: ir.Model) -> None:
    """Averages over a window larger than the picture, as EfficientNet's pooler takes them, become
    averages of all of it: torch divides by the elements that are there. Engines differ in such a
    window (OpenVINO refuses it), all know GlobalAveragePool."""
    pools = [
        node
        for node in model.graph
        if node.op_type == "AveragePool"
        and not node.domain
        and node.attributes.get_int("ceil_mode")
    ]
    if not pools:
        return
    inferred = _infer_shapes(to_proto(model, data=False))
    sizes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim[2:]]
        for value in (*inferred.value_info, *inferred.input)
    }
    for node in pools:
        read = node.inputs[0]
        size = sizes.get(read.name or "", []) if read is not None else []
        window = node.attributes["kernel_shape"].as_ints()
        fits = len(size) == len(window) and all(
            0 < have <= wide for have, wide in zip(size, window, strict=True)
        )
        if fits and not any(node.attributes.get_ints("pads", ())):
            node.op_type = "GlobalAveragePool"
            node.attributes.clear()


def _infer_shapes(proto: onnx.ModelProto) -> onnx.GraphProto:
    """Return the graph with the shapes of its values: onnxruntime's inference follows the
    arithmetic of pads, ONNX's does not. It changes the message."""
    import onnx
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    try:
        inferred: onnx.ModelProto = SymbolicShapeInference.infer_shapes(copied, auto_merge=True)
    except Exception:  # it raises many kinds, bare ones too, for what it does not know
        return onnx.shape_inference.infer_shapes(proto).graph
    return inferred.graph


def _name_after_modules(graph: ir.Graph) -> None:
    """Name nodes as ``encoder.layer.0.attention/MatMul``, and the weights that an exporter
    transposed and numbered after their module.

    The dynamo exporter writes scopes in the metadata ``pkg.torch.onnx.name_scopes``, the
    TorchScript one in names of nodes."""
    outputs = {value.name for value in graph.outputs}
    taken = {value.name or "" for value in (*graph.inputs, *graph.outputs)}
    taken |= set(graph.initializers)
    for node in graph:
        taken.update(value.name or "" for value in node.outputs)
    renamed: dict[str, str] = {}
    numbered = set()
    for name, value in graph.initializers.items():
        if name in outputs:
            continue
        if name.startswith("inner."):
            wanted = name.removeprefix("inner.").removeprefix("held.")
            renamed[name] = _take_name(wanted, taken)
        rank = len(value.const_value.shape) if value.const_value is not None else 0
        if rank >= 2 and ("." not in name or name.startswith("onnx::")):
            numbered.add(name)
    names: set[str] = set()
    for node in graph:
        if scope := _scope(node):
            node.name = _take_name(f"{scope}/{node.op_type}", names)
            for read in node.inputs:
                if read is not None and read.name in numbered and read.name not in renamed:
                    renamed[read.name] = _take_name(f"{scope}.weight", taken)
    surgery.rename_values(graph, renamed)


def _take_name(wanted: str, taken: set[str]) -> str:
    """Return ``wanted``, with a number from 2 behind it where it is taken; it is then."""
    name = next(
        n
        for n in itertools.chain([wanted], (f"{wanted}_{i}" for i in itertools.count(2)))
        if n not in taken
    )
    taken.add(name)
    return name


def _scope(node: ir.Node) -> str:
    """Return the innermost module that a node came of, by its path in the user's model; empty where
    it is not known."""
    written = node.metadata_props.get("pkg.torch.onnx.name_scopes")
    if written is not None:
        with contextlib.suppress(ValueError, SyntaxError):
            # the last is the operator's own
            scopes = [str(scope) for scope in ast.literal_eval(written)[:-1]]
            return (
                (scopes[-1] if scopes else "")
                .removeprefix("inner")
                .removeprefix(".held")
                .lstrip(".")
            )
        return ""
    name = node.name or ""
    path = name.split("/")[1:-1] if name.startswith("/") else []
    return ".".join(path[1:] if path[:1] == ["inner"] else path).removeprefix("held").lstrip(".")


def _prove(
    model: TorchModel,
    weights: MappedWeights,
    target: Path,
    axes: set[str],
    decisions: Sequence[_bounds.Decision],
) -> _bounds.Bounds:
    """Run the graph against the module at two sizes of every free axis, and find out what sizes it
    is right for. Raises UnsupportedError where they differ at both."""
    feeds = [_feed(model, axes, which) for which in ((0, 1) if axes else (0,))]
    answers = [model.run(feed) for feed in feeds]
    weights.release()
    prover = _named.prove_export(target, feeds, answers)
    traced: dict[str, list[int]] = {}
    for spec in model.inputs:
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, str) and dim in axes:
                traced.setdefault(dim, []).extend(feed[spec.name].shape[axis] for feed in feeds)
    # user's samples have the sizes that they have; a large module takes too long
    if not traced or model.given or count_bytes(model.module) > LARGE:
        return _bounds.Bounds({}, {}, tuple(dict.fromkeys(d.place for d in decisions)))
    base = samples.sizes_of(model.inputs, feeds[0])

    def ask(axis: str, size: int) -> bool | None:
        """Return whether the graph is right where an axis has another size than in the trace; None
        where the module does not take it."""
        dims = {**base, axis: size}
        try:
            feed = model.draw(1, samples.SEED, dims)[0]
            if samples.sizes_of(model.inputs, feed)[axis] != size:
                return None
            answer = model.run(feed)
        except Exception:  # samplers and modules raise anything
            return None
        try:
            prover.check(feed, answer)
        except Exception:  # engines raise their own kinds
            return False
        return True

    batches = {dim for dim in traced if "batch" in dim}
    return _bounds.find_bounds(traced, decisions, ask, batches=batches)

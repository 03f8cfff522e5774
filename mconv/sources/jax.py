"""JAX and Flax: a function or module from a factory of the repository, with its parameters from a
file."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv import samples
from mconv.errors import SourceError, UnsupportedError, UsageError
from mconv.onnx_graph import model_files, model_info
from mconv.sources import _factory, _named
from mconv.values import ExportInfo, SourceConfig, TensorSpec

if TYPE_CHECKING:
    import numpy as np

TOOLS = ("jax", "flax", "jax2onnx", "onnx", "onnx-ir", "onnxruntime")
PRELOAD = ("jax", "flax", "flax.linen", "flax.nnx", "jax2onnx", "onnx", "onnx_ir")
CHATTER = ("absl", "onnx_ir", "jax2onnx", "")  # loggers of Orbax and the converter
OPTIONS = {
    "factory": {
        "type": "string",
        "description": "module:function, in the repository, that builds the function or module",
    },
}
OPSET = 20
WIDE = ("float64", "int64", "uint64")


def kind(path: Path) -> str | None:
    """What holds the parameters: ``npz``, ``safetensors``, ``msgpack``, ``orbax`` (a folder), or
    ``code`` (a .py file: none)."""
    if path.is_dir():
        return (
            "orbax"
            if any((path / n).is_file() for n in ("_METADATA", "_CHECKPOINT_METADATA"))
            else None
        )
    if path.suffix == ".npz" and zipfile.is_zipfile(path):
        return "npz"
    return (
        {".safetensors": "safetensors", ".msgpack": "msgpack", ".py": "code"}.get(path.suffix)
        if path.is_file()
        else None
    )


def detect(path: Path) -> bool:
    """Orbax folders and Flax's .msgpack; what other frameworks write too (.safetensors, .npz) needs
    ``format: jax``."""
    if kind(path) == "orbax":
        return True
    if kind(path) != "msgpack":
        return False
    with path.open("rb") as file:
        head = file.read(1)
    # a map, msgpack/spec.md
    return bool(head) and (0x80 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF))


def imports_code(options: Mapping[str, Any]) -> bool:
    """Return whether a factory builds the model."""
    return bool(options.get("factory"))


def check(config: SourceConfig) -> None:
    """Raises UsageError where the factory or the inputs are not given, or the file is none that
    holds parameters."""
    path = Path(config.path)
    if kind(path) is None:
        raise UsageError(
            f"{path.name} holds no parameters that mconv reads",
            hint="give .npz, .safetensors, .msgpack (flax.serialization), an Orbax folder, or the "
            "factory's own .py file",
        )
    if not config.options.get("factory"):
        raise UsageError(
            "a JAX model needs the code that computes it",
            hint="add `factory: module:function`, which returns the function or module",
        )
    _factory.check(config, "factory")
    if not config.inputs:
        raise UsageError(
            "the model's inputs are not known",
            hint="declare them: `inputs: {image: {shape: [batch, 28, 28, 1]}}`",
        )
    for spec in config.inputs:
        if spec.dtype in WIDE:
            raise UsageError(
                f"input {spec.name!r} is {spec.dtype}; JAX computes in 32 bits",
                hint=f"declare it as {spec.dtype.replace('64', '32')}",
            )


def files(config: SourceConfig) -> Sequence[Path]:
    path = Path(config.path)
    own = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return own + _factory.files(config, "factory")


def _jax() -> Any:
    import jax

    jax.config.update("jax_platforms", "cpu")  # type: ignore[no-untyped-call]
    return jax


def _parameters(path: Path, found: str) -> Any:
    """The tree of arrays in a file; nothing of it is run. Raises SourceError for a damaged file, or
    one with pickles in it."""
    import numpy as np

    try:
        if found == "npz":
            with np.load(path, allow_pickle=False) as data:
                return _nested({name: data[name] for name in data.files})
        if found == "safetensors":
            from safetensors.numpy import load_file

            return _nested(load_file(str(path)))
        if found == "msgpack":
            from flax.serialization import msgpack_restore

            return _listed(msgpack_restore(path.read_bytes()))
        import orbax.checkpoint as ocp

        with _named.quiet(*CHATTER):
            return _listed(ocp.PyTreeCheckpointer().restore(str(path)))
    except Exception as problem:  # each reader raises errors of its own
        said = " ".join(str(problem).split())[:400]
        raise SourceError(
            f"{path.name} cannot be read as parameters: {said}",
            hint="save plain arrays; mconv loads no pickles",
        ) from problem


def _nested(flat: Mapping[str, Any]) -> Any:
    """``a/b/c`` (or ``a.b.c`` where no name has a slash) as nested dicts."""
    separator = "/" if any("/" in name for name in flat) else "."
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split(separator)
        inner = tree
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{name} lies below another array")
        inner[last] = value
    return _listed(tree)


def _listed(tree: Any) -> Any:
    """Mappings with the keys 0, 1, 2 … as lists: files have no other way to write one."""
    if not isinstance(tree, Mapping):
        return [_listed(v) for v in tree] if isinstance(tree, list | tuple) else tree
    inner = {str(k): _listed(v) for k, v in tree.items()}
    return (
        [inner[str(i)] for i in range(len(inner))]
        if inner and inner.keys() == {str(i) for i in range(len(inner))}
        else inner
    )


def _restored(module: Any, tree: Any, name: str) -> None:
    """Put a tree of arrays into an nnx.Module. Raises SourceError naming what is missing, left over
    or of another shape."""
    import jax
    import numpy as np
    from flax import nnx

    def flat(of: Any) -> dict[str, Any]:
        pairs = jax.tree_util.tree_flatten_with_path(of)[0]
        return {
            "/".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path): leaf
            for path, leaf in pairs
        }

    def is_key(leaf: Any) -> bool:
        return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)

    state = nnx.state(module)
    pure = nnx.to_pure_dict(state)
    wanted, given = flat(pure), flat(tree)
    wanted = {k: v for k, v in wanted.items() if not is_key(v)}
    wanted = {
        k: v
        for k, v in wanted.items()
        if k in given or not k.endswith(("rngs/count", "rngs/key", "count/value"))
    }
    wrong = [f"lacks {k}" for k in wanted if k not in given] + [
        f"has {k} besides" for k in given if k not in wanted
    ]
    wrong += [
        f"has {k} as {given[k].shape}, not {v.shape}"
        for k, v in wanted.items()
        if k in given and given[k].shape != v.shape
    ]
    if wrong:
        raise SourceError(
            f"{name} does not fit the factory's module: it {'; '.join(wrong[:5])}",
            hint="is it of another version?",
        )

    def filled(path: Any, leaf: Any) -> Any:
        key = "/".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path)
        return np.asarray(given[key], wanted[key].dtype) if key in wanted else leaf

    nnx.replace_by_pure_dict(state, jax.tree_util.tree_map_with_path(filled, pure))
    nnx.update(module, state)


class JaxModel:
    """A function of arrays, jitted. Inputs are bound by name where the function has all of the
    names, else in order."""

    def __init__(self, config: SourceConfig) -> None:
        self.jax = _jax()
        self.inputs: tuple[TensorSpec, ...] = config.inputs
        self.parameters: int | None = None
        self.order: list[str] = []
        self.high: dict[str, int] = {}
        function, signature = self._built(config)
        names = [s.name for s in self.inputs]
        by_name = set(names) <= signature

        def flat(*arrays: Any) -> dict[str, Any]:
            answer = (
                function(**dict(zip(names, arrays, strict=True))) if by_name else function(*arrays)
            )
            named = _named.flatten(answer, self.jax.Array)
            self.order = list(named)  # jit sorts the keys of what it returns
            return named

        self.function = flat
        self.compiled = self.jax.jit(flat)
        self.high = self._tables()
        feeds = self.draw(2, samples.SEED, {})
        self.outputs: tuple[TensorSpec, ...] = _named.infer_output_specs(
            [self.run(f) for f in feeds], feeds, self.inputs
        )

    def _built(self, config: SourceConfig) -> tuple[Callable[..., Any], set[str]]:
        """The function of the inputs alone, and the names of its parameters; counts the model's
        parameters."""
        path = Path(config.path)
        found = kind(path)
        made = _factory.function(config, "factory")()
        tree = None
        if found == "code":
            if isinstance(made, tuple) and len(made) == 2:
                made, tree = made
        else:
            tree = _parameters(path, found or "")
        flax_module = _flax_kind(made)
        if flax_module == "nnx":
            from flax import nnx

            if tree is not None:
                _restored(made, tree, path.name)
            made.eval()
            self.parameters = self._count(nnx.state(made, nnx.Param))
            return made, _names(made.__call__)
        if flax_module == "linen":
            if not isinstance(tree, Mapping):
                raise SourceError(
                    "a flax.linen module has no parameters of its own",
                    hint="return (module, variables), or name a file with them",
                )
            variables = tree if "params" in tree else {"params": tree}
            self.parameters = self._count(variables["params"])
            return lambda *a, **k: made.apply(variables, *a, **k), _names(made.__call__)
        if not callable(made):
            raise SourceError(
                f"the factory returned {type(made).__name__}, not a function or module",
                hint="return a function, (function, parameters), or a Flax module",
            )
        if tree is None:
            return made, _names(made)
        self.parameters = self._count(tree)
        return lambda *a, **k: made(tree, *a, **k), _names(made)

    def _count(self, tree: Any) -> int:
        import math

        return sum(math.prod(getattr(leaf, "shape", ())) for leaf in self.jax.tree.leaves(tree))

    def draw(self, count: int, seed: int, dims: Mapping[str, int]) -> list[dict[str, np.ndarray]]:
        return samples.draw_feeds(self.inputs, count=count, seed=seed, dims=dims, high=self.high)

    def _tables(self) -> dict[str, int]:
        """For each integer input that looks up rows of a table: the smallest such table's rows,
        from the traced primitives."""
        if not any(s.dtype.startswith(("int", "uint")) for s in self.inputs):
            return {}
        (feed,) = samples.draw_feeds(self.inputs, count=1)
        try:
            closed = self.jax.make_jaxpr(self.function)(*(feed[s.name] for s in self.inputs))
        except Exception:  # the first run says what is wrong with it
            return {}
        found: dict[str, int] = {}
        _lookups(
            closed.jaxpr,
            {v: s.name for v, s in zip(closed.jaxpr.invars, self.inputs, strict=True)},
            found,
        )
        return found

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> list[Mapping[str, np.ndarray]] | None:
        return None

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Raises SourceError with the exception of the model's own code."""
        import numpy as np

        try:
            answer = self.compiled(*(self.jax.numpy.asarray(feed[s.name]) for s in self.inputs))
            return {name: np.array(answer[name]) for name in self.order}
        except SourceError:
            raise
        except Exception as problem:  # the repository's code may raise anything
            said = " ".join(str(problem).split())[:600]
            raise SourceError(
                f"the model raised {type(problem).__name__}: {said}", hint="check `inputs:`"
            ) from problem


def _lookups(jaxpr: Any, origin: dict[Any, str], found: dict[str, int]) -> dict[Any, str]:
    """Follow integers from the inputs in ``origin`` through a jaxpr; a gather by them along one
    axis bounds ``found``.

    What has a ``val`` is a literal, not a variable.
    """
    for equation in jaxpr.eqns:
        names = [None if hasattr(v, "val") else origin.get(v) for v in equation.invars]
        inner = next(
            (p for p in equation.params.values() if hasattr(getattr(p, "jaxpr", p), "eqns")), None
        )
        if inner is not None:
            body = getattr(inner, "jaxpr", inner)
            if len(body.invars) == len(names):
                known = _lookups(
                    body, {v: n for v, n in zip(body.invars, names, strict=True) if n}, found
                )
                outs = zip(equation.outvars, body.outvars, strict=False)
                origin |= {o: known[b] for o, b in outs if not hasattr(b, "val") and b in known}
            continue
        if equation.primitive.name == "gather" and names[1]:
            axes = equation.params["dimension_numbers"].start_index_map
            if len(axes) == 1:
                rows = int(equation.invars[0].aval.shape[axes[0]])
                found[names[1]] = min(rows, found.get(names[1], rows))
        elif name := next((n for n in names if n), None):
            origin |= {v: name for v in equation.outvars if v.aval.dtype.kind in "iu"}
    return origin


def _flax_kind(made: Any) -> str | None:
    """``nnx`` or ``linen`` for a Flax module; Flax is not imported where the factory did not."""
    if "flax" not in sys.modules:
        return None
    from flax import linen, nnx

    return (
        "nnx"
        if isinstance(made, nnx.Module)
        else "linen"
        if isinstance(made, linen.Module)
        else None
    )


def _names(function: Callable[..., Any]) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return set()


def load(config: SourceConfig) -> JaxModel:
    """The model on the CPU. Raises SourceError for parameters that do not fit, and for what the
    repository's code raises."""
    return JaxModel(config)


def export(config: SourceConfig, out: Path) -> ExportInfo:
    """Through jax2onnx, at symbolic sizes. Raises UnsupportedError with each attempt's reason where
    none gives a right graph.

    The model is traced to primitives first where jax2onnx does not take it as it is: its patches of
    Flax and jax.numpy, which keep layers whole, do not know every signature."""
    model = load(config)
    free = sorted({d for s in model.inputs for d in s.shape if isinstance(d, str)})
    names = [s.name for s in model.outputs]
    attempts: list[str] = []
    target = out / model_files.MODEL_FILE

    def whole(*arrays: Any) -> tuple[Any, ...]:
        answer = model.function(*arrays)
        return tuple(answer[n] for n in names)

    for axes in [free, [d for d in free if "batch" in d], []] if free else [[]]:
        feeds = _feeds(model, axes)
        sizes = {
            d: n
            for s in model.inputs
            for d, n in zip(s.shape, feeds[0][s.name].shape, strict=True)
            if isinstance(d, str)
        }
        fixed = {d: n for d, n in sizes.items() if d not in axes}
        at = f"free {', '.join(axes)}" if axes else "fixed sizes"
        specs = _specs(model, axes, fixed)
        try:
            traced = _traced(model, specs)
            answers = [model.run(f) for f in feeds]
        except UnsupportedError:
            raise
        except Exception as problem:  # a shape that must be known, or the repository's code
            attempts.append(f"JAX at {at}: {_reason(problem)}")
            continue
        for name, function in (("jax2onnx", whole), ("jax2onnx, of primitives", traced)):
            try:
                with _named.quiet(*CHATTER), _unpatched():
                    graph = model_files.model_of(_converter()(function, specs, opset=OPSET))
                _named.name_values(graph, model.inputs, model.outputs, fixed)
                model_files.save_model(graph, target)
                _named.prove(target, feeds, answers)
            except Exception as problem:
                # jax2onnx raises anything; the reason is kept and the next way is tried
                attempts.append(f"{name} at {at}: {_reason(problem)}")
                continue
            notes = (
                (
                    f"the axes {', '.join(sorted(fixed))} are fixed in the export: it is right at "
                    "one size only",
                )
                if fixed
                else ()
            )
            info = model_info.describe(target)
            return ExportInfo(
                exporter=f"{name}, opset {OPSET}", model=info, attempts=tuple(attempts), notes=notes
            )
    raise UnsupportedError(
        "jax2onnx cannot turn the model into ONNX: " + "; ".join(dict.fromkeys(attempts)),
        hint="the messages name the primitive; rewriting that part of the function usually helps",
    )


def _converter() -> Callable[..., Any]:
    """``jax2onnx.to_onnx`` without its examples, and without its plug-ins for Equinox where the
    factory does not use it.

    Those build layers when they are imported, which takes most of the time of an export; it passes
    over modules that are not there."""
    idle = [
        "jax2onnx.plugins.examples",
        *(() if "equinox" in sys.modules else ["jax2onnx.plugins.equinox"]),
    ]
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


def _feeds(model: JaxModel, axes: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """Two feeds that differ in the size of every axis in ``axes``; one where there is none."""
    fixed = samples.static_dims(model.inputs, {})
    dims = [
        {d: fixed[d] for d in fixed if d not in axes},
        {d: fixed[d] for d in fixed if d not in axes},
    ]
    for which, sizes in enumerate(dims):
        sizes.update({d: (2, 3)[which] if "batch" in d else (12, 7)[which] for d in axes})
    return [
        model.draw(2, samples.SEED + 1, sizes)[which]
        for which, sizes in enumerate(dims[: 2 if axes else 1])
    ]


def _specs(model: JaxModel, axes: Sequence[str], fixed: Mapping[str, int]) -> list[Any]:
    jax = model.jax
    scope = jax.export.SymbolicScope()
    symbols = {d: jax.export.symbolic_shape(f"axis{i}", scope=scope)[0] for i, d in enumerate(axes)}
    return [
        jax.ShapeDtypeStruct(
            tuple(d if isinstance(d, int) else symbols.get(d, fixed.get(d)) for d in s.shape),
            s.dtype,
        )
        for s in model.inputs
    ]


def _traced(model: JaxModel, specs: Sequence[Any]) -> Callable[..., Any]:
    """The model as a function of primitives only, in the order of ``outputs``, without what no
    output depends on."""
    from jax.core import eval_jaxpr
    from jax.interpreters.partial_eval import dce_jaxpr

    names = [s.name for s in model.outputs]
    closed = model.jax.make_jaxpr(lambda *a: tuple(model.function(*a)[n] for n in names))(*specs)
    jaxpr, used = dce_jaxpr(closed.jaxpr, [True] * len(names))
    if idle := [s.name for s, u in zip(model.inputs, used, strict=True) if not u]:
        raise UnsupportedError(
            f"the model does not use its input {', '.join(idle)}; remove it from `inputs:`"
        )
    return lambda *arrays: tuple(eval_jaxpr(jaxpr, closed.consts, *arrays))


def _reason(problem: BaseException) -> str:
    text = (
        problem.message
        if isinstance(problem, SourceError | UnsupportedError)
        else f"{type(problem).__name__}: {problem}"
    )
    return re.sub(
        r" For simplicity, JAX has removed.*", "", " ".join(text.split()).replace("-" * 20, "")
    )[:300]


@contextlib.contextmanager
def _unpatched() -> Iterator[None]:
    """Undo what jax2onnx leaves patched in the modules of JAX and Flax (jax2onnx 0.17:
    jax.numpy.cumsum and others)."""
    before = {
        m: dict(vars(m))
        for n, m in list(sys.modules.items())
        if n.split(".")[0] in ("jax", "flax") and "._src" not in n
    }
    try:
        yield
    finally:
        for module, values in before.items():
            for name, value in values.items():
                if vars(module).get(name) is not value:
                    setattr(module, name, value)

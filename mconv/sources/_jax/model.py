"""A function of arrays, built by the repository's factory, that runs on the CPU."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from mconv import samples
from mconv.errors import SourceError, one_line
from mconv.sources import _factory, _named
from mconv.sources._jax.indices import follow_indices
from mconv.sources._jax.parameters import Tree, find_kind, put_parameters, read_parameters
from mconv.values import SourceConfig, TensorSpec

if TYPE_CHECKING:
    import jax
    import numpy as np
    from flax import linen, nnx

Function = Callable[..., object]  # of arrays, or a module, from a repository


def _import_jax() -> ModuleType:
    """Return JAX, which from now on computes on the CPU."""
    import jax

    jax.config.update("jax_platforms", "cpu")  # type: ignore[no-untyped-call]
    return jax


class JaxModel:
    """A function of arrays, jitted. Inputs are bound by name where the function has all of the
    names, else in order.

    Attributes:
        jax: The module JAX.
        inputs: Its inputs, as the manifest declares them.
        outputs: Its outputs.
        parameters: How many weights it has, where they are known from its function.
        function: The function of the inputs, in order, to its outputs by name.
        compiled: The same, jitted.
        order: The names of the outputs as the function gives them; jit sorts them.
        high: For inputs that are indices, the number of rows that they choose from.
    """

    def __init__(self, config: SourceConfig) -> None:
        self.jax = _import_jax()
        self.inputs: tuple[TensorSpec, ...] = config.inputs
        self.parameters: int | None = None
        self.order: list[str] = []
        self.high: dict[str, int] = {}
        function, signature = self._build(config)
        names = [spec.name for spec in self.inputs]
        by_name = set(names) <= signature

        def answer(*arrays: jax.Array) -> dict[str, jax.Array]:
            result = (
                function(**dict(zip(names, arrays, strict=True))) if by_name else function(*arrays)
            )
            outputs = _named.flatten_answer(result, self.jax.Array)
            self.order = list(outputs)
            return outputs

        self.function = answer
        self.compiled = self.jax.jit(answer)
        self.high = self._find_tables()
        feeds = self.draw_feeds(2, samples.SEED, {})
        self.outputs = _named.infer_output_specs(
            [self.run(feed) for feed in feeds], feeds, self.inputs
        )

    def _build(self, config: SourceConfig) -> tuple[Function, set[str]]:
        """Return the function of the inputs alone, and the names of its parameters; count the
        model's parameters.

        Raises SourceError where the factory returns nothing that can be called, or the parameters
        do not fit.
        """
        path = Path(config.path)
        kind = find_kind(path) if config.path else "code"
        built = _factory.import_function(config, "factory")()
        tree: Tree = None
        if kind != "code":
            tree = read_parameters(path, kind or "")
        elif isinstance(built, tuple) and len(built) == 2:
            built, tree = built
        if "flax" in sys.modules:  # it is not imported where the factory did not
            from flax import linen, nnx

            if isinstance(built, nnx.Module):
                return self._use_nnx(built, tree, path.name)
            if isinstance(built, linen.Module):
                return self._use_linen(built, tree)
        if not callable(built):
            raise SourceError(
                f"the factory returned {type(built).__name__}, not a function or module",
                hint="return a function, (function, parameters), or a Flax module",
            )
        function: Function = built
        if tree is None:
            return function, _names_of(function)
        self.parameters = self._count_elements(tree)
        return lambda *a, **k: function(tree, *a, **k), _names_of(function)

    def _use_nnx(self, module: nnx.Module, tree: Tree, name: str) -> tuple[Function, set[str]]:
        """Return an nnx module in inference mode, with the parameters of the file ``name``."""
        from flax import nnx

        if tree is not None:
            put_parameters(module, tree, name)
        module.eval()  # type: ignore[no-untyped-call]
        self.parameters = self._count_elements(nnx.state(module, nnx.Param))
        # not its bound __call__: the converter looks that up in the class, where it patches it
        return cast("Function", module), _names_of(module.__call__)  # type: ignore[operator]

    def _use_linen(self, module: linen.Module, tree: Tree) -> tuple[Function, set[str]]:
        """Return a linen module applied to its variables."""
        if not isinstance(tree, Mapping):
            raise SourceError(
                "a flax.linen module has no parameters of its own",
                hint="return (module, variables), or name a file with them",
            )
        variables = tree if "params" in tree else {"params": tree}
        self.parameters = self._count_elements(variables["params"])
        signature = _names_of(module.__call__)  # type: ignore[operator]
        return lambda *a, **k: module.apply(variables, *a, **k), signature

    def _count_elements(self, tree: Tree) -> int:
        """Return how many numbers the arrays of a tree hold."""
        leaves = self.jax.tree.leaves(tree)
        return sum(math.prod(getattr(leaf, "shape", ())) for leaf in leaves)

    def draw_feeds(
        self, count: int, seed: int, dims: Mapping[str, int]
    ) -> list[dict[str, np.ndarray]]:
        """Return seeded feeds; indices stay inside the tables that they look up."""
        return samples.draw_feeds(self.inputs, count=count, seed=seed, dims=dims, high=self.high)

    def _find_tables(self) -> dict[str, int]:
        """Return, for each integer input that looks up rows of a table, the smallest such table's
        rows, from the traced primitives."""
        if not any(spec.dtype.startswith(("int", "uint")) for spec in self.inputs):
            return {}
        (feed,) = samples.draw_feeds(self.inputs, count=1)
        try:
            closed = self.jax.make_jaxpr(self.function)(*(feed[s.name] for s in self.inputs))
        except Exception:  # the first run says what is wrong with it
            return {}
        rows: dict[str, int] = {}
        names = [spec.name for spec in self.inputs]
        follow_indices(closed.jaxpr, dict(zip(closed.jaxpr.invars, names, strict=True)), rows)
        return rows

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> list[Mapping[str, np.ndarray]] | None:
        """Return None: nothing is known of what the inputs mean, so they are drawn from the
        specs."""
        return None

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the model's answer to a feed.

        Raises SourceError with the exception of the model's own code.
        """
        import numpy as np

        try:
            answer = self.compiled(*(self.jax.numpy.asarray(feed[s.name]) for s in self.inputs))
            return {name: np.array(answer[name]) for name in self.order}
        except SourceError:
            raise
        except Exception as problem:  # the repository's code may raise anything
            raise SourceError(
                f"the model raised {type(problem).__name__}: {one_line(problem, 600)}",
                hint="check `inputs:`",
            ) from problem


def _names_of(function: Function) -> set[str]:
    """Return the names of a function's parameters, none where Python cannot tell them."""
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return set()

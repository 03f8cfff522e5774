"""JAX and Flax: a function or module from a factory of the repository, with its parameters from a
file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mconv import contracts
from mconv.errors import UsageError
from mconv.sources import _factory
from mconv.sources._jax.conversion import convert_model
from mconv.sources._jax.model import JaxModel
from mconv.sources._jax.parameters import find_kind
from mconv.values import ExportInfo, JsonObject, SourceConfig

ENVIRONMENT = "jax"
REQUIRES = ("jax>=0.7.2", "flax>=0.12", "jax2onnx>=0.10", "safetensors>=0.4")
TOOLS = ("jax", "flax", "jax2onnx", "onnx", "onnx-ir", "onnxruntime")
PRELOAD = ("jax", "flax", "flax.linen", "flax.nnx", "jax2onnx", "onnx", "onnx_ir")
OPTIONS = {
    "factory": {
        "type": "string",
        "description": "module:function, or file.py:function, that builds the function or module",
    },
}
INSTEAD_OF_PATH = ("factory",)
WIDE = ("float64", "int64", "uint64")  # JAX computes in 32 bits


def detect(path: Path) -> bool:
    """Return whether it is an Orbax folder or Flax's .msgpack; what other frameworks write too
    (.safetensors, .npz) needs ``format: jax``."""
    kind = find_kind(path)
    if kind == "orbax":
        return True
    if kind != "msgpack":
        return False
    with path.open("rb") as file:
        head = file.read(1)
    # a map, msgpack/spec.md
    return bool(head) and (0x80 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF))


def imports_code(options: JsonObject) -> bool:
    """Return whether a factory builds the model."""
    return bool(options.get("factory"))


def imports(config: SourceConfig) -> Sequence[str]:
    """Return the modules of the factory that must be installed."""
    return _factory.list_foreign(config, "factory")


def check(config: SourceConfig) -> None:
    """Raise UsageError where the factory or the inputs are not given, or the file is none that
    holds parameters."""
    path = Path(config.path)
    if config.path and find_kind(path) is None:
        raise UsageError(
            f"{path.name} holds no parameters that mconv reads",
            hint="give .npz, .safetensors, .msgpack (flax.serialization) or an Orbax folder; or "
            "none, where the factory has the parameters",
        )
    if not config.options.get("factory"):
        raise UsageError(
            "a JAX model needs the code that computes it",
            hint="add `factory: module:function`, which returns the function or module",
        )
    _factory.check_option(config, "factory")
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
    """Return the files of the parameters, and those of the factory's modules."""
    own = contracts.list_all_files(config) if config.path else []
    return [*own, *_factory.list_files(config, "factory")]


def load(config: SourceConfig) -> JaxModel:
    """Return the model on the CPU.

    Raises SourceError for parameters that do not fit, and for what the repository's code raises.
    """
    return JaxModel(config)


def export(config: SourceConfig, out: Path) -> ExportInfo:
    """Write ``model.onnx`` through jax2onnx, at symbolic sizes.

    Raises UnsupportedError with each attempt's reason where none gives a right graph.
    """
    return convert_model(load(config), out)

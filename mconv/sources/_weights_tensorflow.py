"""Weights of Keras models and SavedModels by name: their variables."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mconv.contracts import Model
from mconv.errors import StepError
from mconv.sources._weighted import Weighted
from mconv.values import JsonObject
from mconv.weights import About, Tensor, check_names

if TYPE_CHECKING:
    import numpy as np

# what a Keras archive says of its architecture, in config.json
_CONFIG_KEYS = ("module", "class_name", "config", "registered_name")


class Shape(Protocol):
    """A shape of TensorFlow."""

    def num_elements(self) -> int | None:
        """Return how many elements a tensor of it has, where that is known."""


class Variable(Protocol):
    """A variable of TensorFlow or Keras.

    Attributes:
        name: Its name; Keras also has a ``path``, with the names of its layers.
        shape: Its shape.
    """

    name: str
    shape: Shape

    def numpy(self) -> np.ndarray:
        """Return its value."""

    def assign(self, value: np.ndarray) -> object:
        """Give it another value of the same shape and type."""


class VariablesModel(Model, Protocol):
    """The source's own model.

    Attributes:
        owner: The Keras model, or what a SavedModel was loaded as.
    """

    owner: object

    def list_variables(self) -> Sequence[Variable]:
        """Return its variables."""


class TensorFlowWeights(Weighted[VariablesModel]):
    """The variables of a model, which Keras names by its layers (``dense/kernel``).

    Attributes:
        variables: The variables by name.
        about: What the weights are of.
        aliases: None: no variables share memory.
    """

    aliases: Mapping[str, str] = {}

    def __init__(self, model: VariablesModel, path: Path) -> None:
        """``model``: the source's own model of ``path``."""
        super().__init__(model)
        owner = model.owner
        if hasattr(owner, "weights") and hasattr(owner, "layers"):
            architecture = type(owner).__name__
            self.variables = _name_variables(owner.weights)
        else:
            architecture = path.stem
            self.variables = _name_variables(model.list_variables())
        self.about = About(
            format="tensorflow",
            architecture=architecture,
            config=_read_config(path),
            parameters=model.parameters,
        )

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every variable's value by name."""
        for name, variable in self.variables.items():
            yield name, Tensor.of(variable.numpy())

    def copy_files(self, out: Path) -> None:
        """Copy nothing: an archive holds its configuration, which is in the metadata."""

    def replace(self, tensors: Mapping[str, Tensor]) -> None:
        """Erase every variable, then give each its tensor, in its own type.

        Raises StepError where one is missing, unknown or of another shape.
        """
        import numpy as np

        check_names(self.variables, tensors, "what was read")
        for variable in self.variables.values():
            own = variable.numpy()
            variable.assign(np.full(own.shape, np.nan if own.dtype.kind in "fcV" else 0, own.dtype))
        for name, variable in self.variables.items():
            own, replacement = variable.numpy(), tensors[name].numpy()
            if own.shape != replacement.shape:
                raise StepError(
                    f"weight {name!r} has shape {list(replacement.shape)}, the model takes "
                    f"{list(own.shape)}"
                )
            variable.assign(replacement.astype(own.dtype))


def _name_variables(variables: Iterable[Variable]) -> dict[str, Variable]:
    """Return variables once each by path or name; a name that comes again is numbered (``name:1``
    …)."""
    by_name: dict[str, Variable] = {}
    seen: set[int] = set()
    for variable in variables:
        if id(variable) in seen:
            continue
        seen.add(id(variable))
        base = str(getattr(variable, "path", None) or variable.name).removesuffix(":0")
        name, number = base, 0
        while name in by_name:
            number += 1
            name = f"{base}:{number}"
        by_name[name] = variable
    return by_name


def _read_config(path: Path) -> JsonObject:
    """Return the architecture as a Keras archive states it; of other files nothing."""
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        config: JsonObject = json.loads(archive.read("config.json"))
    return {key: value for key, value in config.items() if key in _CONFIG_KEYS}

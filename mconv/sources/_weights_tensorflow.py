"""Weights of Keras models and SavedModels by name: their variables."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mconv.errors import StepError
from mconv.sources._weighted import Weighted
from mconv.weights import About, Tensor, check_names


class TensorFlowWeights(Weighted):
    """``model`` is the source's own model of ``path``. Keras names a variable by its layers
    (``dense/kernel``)."""

    aliases: Mapping[str, str] = {}

    def __init__(self, model: Any, path: Path) -> None:
        super().__init__(model)
        owner = model.owner
        keras = hasattr(owner, "weights") and hasattr(owner, "layers")
        self.variables = _named(owner.weights if keras else model.variables())
        self.about = About(
            format="tensorflow",
            architecture=type(owner).__name__ if keras else path.stem,
            config=_config(path),
            parameters=model.parameters,
        )

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, variable in self.variables.items():
            yield name, Tensor.of(variable.numpy())

    def copy_files(self, out: Path) -> None:
        """Nothing goes beside: an archive holds its configuration, which is in the metadata."""

    def replace(self, tensors: Mapping[str, Tensor]) -> None:
        import numpy as np

        check_names(self.variables, tensors, "what was read")
        for variable in self.variables.values():
            own = variable.numpy()
            variable.assign(np.full(own.shape, np.nan if own.dtype.kind in "fcV" else 0, own.dtype))
        for name, variable in self.variables.items():
            own, given = variable.numpy(), tensors[name].numpy()
            if own.shape != given.shape:
                raise StepError(
                    f"weight {name!r} has shape {list(given.shape)}, the model takes "
                    f"{list(own.shape)}"
                )
            variable.assign(given.astype(own.dtype))


def _named(variables: Any) -> dict[str, Any]:
    """Variables once each by path or name; a name that comes again is numbered (``name:1`` …)."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for variable in variables:
        if id(variable) in seen:
            continue
        seen.add(id(variable))
        base = str(getattr(variable, "path", None) or variable.name).removesuffix(":0")
        name, number = base, 0
        while name in found:
            number += 1
            name = f"{base}:{number}"
        found[name] = variable
    return found


def _config(path: Path) -> dict[str, Any]:
    """The architecture as a Keras archive states it; of other files nothing."""
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        found = json.loads(archive.read("config.json"))
    return {
        k: v for k, v in found.items() if k in ("module", "class_name", "config", "registered_name")
    }

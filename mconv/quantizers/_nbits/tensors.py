"""Weights where they lie: in the model, or mapped from its file of external data, one at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mconv.onnx_graph import model_files

if TYPE_CHECKING:
    import onnx


def large(model: Path) -> bool:
    """Whether ``model``, its external data included, is too large to be held in memory several
    times."""
    from onnx.external_data_helper import ExternalDataInfo, _get_all_tensors, uses_external_data

    size = model.stat().st_size
    if size <= LARGE:
        outside = [
            t
            for t in _get_all_tensors(model_files.load(model, data=False))
            if uses_external_data(t)
        ]
        size += sum(ExternalDataInfo(t).length or 0 for t in outside)
    return size > LARGE


LARGE = 1 << 30


class Tensors:
    """The initializers of a graph by name. ``folder``: where external data lie."""

    def __init__(self, body: onnx.GraphProto, folder: Path) -> None:
        self.tensors = {t.name: t for t in body.initializer}
        self.folder = folder

    def read(self, name: str) -> np.ndarray:
        """The array; external data are mapped, not read."""
        from onnx import numpy_helper
        from onnx.external_data_helper import ExternalDataInfo, uses_external_data

        tensor = self.tensors[name]
        if not uses_external_data(tensor):
            array: np.ndarray = numpy_helper.to_array(tensor)
            return array
        about = ExternalDataInfo(tensor)
        shape = tuple(tensor.dims)
        if math.prod(shape) == 0:
            return np.zeros(shape, np.float32)
        mapped: np.ndarray = np.memmap(
            self.folder / about.location, np.float32, "r", about.offset or 0, shape
        )
        return mapped

    def load_rest(self, gone: set[str]) -> None:
        """Bring external data of every other tensor into the model."""
        from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

        for name, tensor in self.tensors.items():
            if name not in gone and uses_external_data(tensor):
                load_external_data_for_tensor(tensor, str(self.folder))
                tensor.data_location = 0  # DEFAULT
                del tensor.external_data[:]

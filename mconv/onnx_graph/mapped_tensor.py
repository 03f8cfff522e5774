"""A tensor that stays in its file and is mapped anew each time it is read."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
import onnx_ir as ir

CHUNK = 1 << 24  # bytes copied at once


class MappedTensor(ir.ExternalTensor):
    """External data of a model that :func:`mconv.onnx_graph.model_files.load_model` has checked.

    An ``onnx_ir.ExternalTensor`` keeps the map of its file once it has been read, so that the pages
    it touched count as memory of the process. This one keeps nothing: its memory is let go with the
    array that was read. It also takes files with several hard links, as a store of steps has them;
    the reader of the model has seen that the file lies inside of the model's folder."""

    __slots__ = ()

    @classmethod
    def of(cls, tensor: ir.ExternalTensor) -> MappedTensor:
        """Return the same external data as a tensor of this class."""
        return cls(
            tensor.location,
            tensor.offset,
            tensor.length,
            tensor.dtype,
            shape=tensor.shape,
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props) or None,
            base_dir=tensor.base_dir,
        )

    def stored(self) -> np.ndarray:
        """Return the bytes as they stand in the file: uint8, mapped, read-only."""
        if not self.nbytes:
            return np.zeros(0, np.uint8)
        return np.memmap(self.path, np.uint8, "r", self.offset or 0, (self.nbytes,))

    def numpy(self) -> np.ndarray:
        """Return the values, mapped from the file where each takes whole bytes."""
        if self.dtype.bitwidth < 8:
            return ir.PackedTensor(self.stored(), self.dtype, shape=self.shape).numpy()
        kind = np.dtype(self.dtype.numpy()).newbyteorder("<")
        values: np.ndarray = self.stored().view(kind).reshape(self.shape.numpy())
        return values

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        values = self.numpy()
        return values.astype(dtype) if dtype is not None and dtype != values.dtype else values

    def tobytes(self) -> bytes:
        """Return the bytes as they stand in the file, in memory."""
        return self.stored().tobytes()

    def tofile(self, file: BinaryIO) -> None:
        """Copy the bytes to an open file, a part at a time."""
        remaining = self.nbytes
        with open(self.path, "rb") as source:
            source.seek(self.offset or 0)
            while remaining:
                chunk = source.read(min(CHUNK, remaining))
                if not chunk:
                    raise OSError(f"{self.path} ends before tensor {self.name!r} does")
                file.write(chunk)
                remaining -= len(chunk)

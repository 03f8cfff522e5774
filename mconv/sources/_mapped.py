"""Weights of large PyTorch modules, out of memory while others need it."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LARGE = 1 << 30  # bytes of weights that are not in memory twice
SMALLEST = 1 << 16  # bytes of a tensor worth a file
# madvise(2): pages of a private mapping that nobody wrote to are read from the file again
MADV_DONTNEED = 4


def count_bytes(module: object) -> int:
    """Return the bytes of a module's parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in list_tensors(module))


def list_tensors(module: object) -> list[torch.Tensor]:
    """Return a module's parameters and buffers; none of what is no module."""
    import torch

    if not isinstance(module, torch.nn.Module):
        return []
    return [*module.parameters(), *module.buffers()]


class MappedWeights:
    """The parameters and buffers of a module, as mappings of files where they are of more than
    1 GiB: :meth:`release` takes them out of memory, and what uses them next brings them back. A
    smaller module stays as it is.

    Attributes:
        mapped: The tensors that are mappings.
    """

    def __init__(self, module: object, folder: Path) -> None:
        """``folder``: where the files are to lie; it must outlive the module's use."""
        import torch

        self.mapped: list[torch.Tensor] = []
        if count_bytes(module) <= LARGE:
            return
        for index, tensor in enumerate(list_tensors(module)):
            if tensor.numel() * tensor.element_size() < SMALLEST:
                # out of the file of all weights, which a part of it would hold in memory
                tensor.data = tensor.data.clone()
                continue
            file = folder / str(index)
            tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tofile(file)
            flat = torch.from_file(str(file), shared=False, size=tensor.numel(), dtype=tensor.dtype)
            tensor.data = flat.reshape(tensor.shape)
            self.mapped.append(tensor)

    def release(self) -> None:
        """Take the mapped tensors out of memory. Whoever still holds a weight, such as what an
        exporter leaves behind, holds only the mapping then."""
        for tensor in self.mapped:
            size = tensor.numel() * tensor.element_size()
            ctypes.CDLL(None).madvise(
                ctypes.c_void_p(tensor.data_ptr()), ctypes.c_size_t(size), MADV_DONTNEED
            )

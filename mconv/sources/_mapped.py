"""Weights of large PyTorch modules, out of memory while others need it."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

LARGE = 1 << 30  # bytes of weights that are not in memory twice
SMALLEST = 1 << 16  # bytes of a tensor worth a file


def bytes_of(module: Any) -> int:
    """Size of a module's parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in _tensors(module))


def _tensors(module: Any) -> list[torch.Tensor]:
    import torch

    return [*module.parameters(), *module.buffers()] if isinstance(module, torch.nn.Module) else []


class Weights:
    """Of a module of more than 1 GiB, parameters and buffers as mappings of files: :meth:`leave` takes them out of memory, and what
    uses them next brings them back. Of a smaller one, nothing is done."""

    def __init__(self, module: Any, folder: Path) -> None:
        """``folder``: where the files are to lie; it must outlive the module's use."""
        import torch

        self.files: list[tuple[torch.Tensor, Path]] = []
        if bytes_of(module) <= LARGE:
            return
        for index, tensor in enumerate(_tensors(module)):
            if tensor.numel() * tensor.element_size() >= SMALLEST:
                file = folder / str(index)
                tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tofile(file)
                self.files.append((tensor, file))
                self._map(tensor, file)

    def leave(self) -> None:
        if self.files:
            gc.collect()  # an exporter's cycles hold the old mappings
        for tensor, file in self.files:
            self._map(tensor, file)

    def _map(self, tensor: torch.Tensor, file: Path) -> None:
        import torch

        flat = torch.from_file(str(file), shared=False, size=tensor.numel(), dtype=tensor.dtype)
        tensor.data = flat.reshape(tensor.shape)

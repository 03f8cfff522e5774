"""What a trace takes for granted: a tracer follows one run of a module, so a Python decision in it
is fixed as that run took it.

Decisions on sizes show when the graph is run at other sizes (:mod:`mconv.sources._bounds`). One on
values (``if mask.all():``) need not show in any sample."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv.sources._bounds import Decision

if TYPE_CHECKING:
    import torch


@cache
def recorder() -> type:
    """The class of a context that notes in ``places``, as ``file:line``, where Python reads a value
    that depends on the inputs', and in ``sizes`` where it compares a size of theirs with something.

    Made when it is first needed, since its base is PyTorch's ``TorchFunctionMode``. It is given the
    module's weights. They, sizes (which are tensors while a module is traced) and what is computed
    from nothing else are no such values."""
    import torch
    from torch.overrides import TorchFunctionMode

    readings = {
        getattr(torch.Tensor, f"__{n}__")
        for n in ("bool", "int", "float", "index", "complex", "contains", "array")
    }
    readings |= {torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.numpy}
    # operators call the method without underscores, except of == and !=
    comparisons = {
        getattr(torch.Tensor, form.format(n))
        for n in ("gt", "ge", "lt", "le", "eq", "ne")
        for form in ("{}", "__{}__")
    }
    measures = {torch.Tensor.shape.__get__, torch.Tensor.size, torch.Tensor.numel}
    valueless = measures | {torch.Tensor.__len__}
    valueless |= {
        getattr(torch.Tensor, f"new_{n}") for n in ("tensor", "zeros", "ones", "empty", "full")
    }
    valueless |= {torch.zeros_like, torch.ones_like, torch.empty_like}
    library = str(Path(torch.__file__).parent)

    class Recorder(TorchFunctionMode):  # type: ignore[misc]
        def __init__(self, weights: Iterable[torch.Tensor] = ()) -> None:
            super().__init__()
            self.places: list[str] = []
            self.sizes: list[Decision] = []
            self.measured: dict[int, torch.Tensor] = {}  # sizes, and what follows from them alone
            self.fixed = {id(t): t for t in weights}  # held, so that no other tensor gets the id

        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            given = list(_tensors((args, kwargs or {})))
            fixed = all(id(t) in self.fixed for t in given)
            measured = fixed and any(id(t) in self.measured for t in given)
            if measured and function in comparisons and len(args) == 2:
                self._note_size(args[0], args[1])
            if function in readings and not fixed:
                self.places.append(_place(library))
            answer = function(*args, **(kwargs or {}))
            if fixed or function in valueless:
                self.fixed |= {id(t): t for t in _tensors(answer)}
            if measured or function in measures:
                self.measured |= {id(t): t for t in _tensors(answer)}
            return answer

        def _note_size(self, one: Any, other: Any) -> None:
            """Note a comparison of a size with a number, whichever side it stands on."""
            if id(one) not in self.measured:
                one, other = other, one
            with contextlib.suppress(TypeError, ValueError, RuntimeError):  # more than a number
                decision = Decision(_place(library), float(one), float(other))
                if decision not in self.sizes:
                    self.sizes.append(decision)

    return Recorder


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _place(library: str) -> str:
    """The innermost frame that is neither PyTorch's nor this module's."""
    frame = sys._getframe(1)
    passed = (library, __file__, "<")
    while frame.f_back is not None and frame.f_code.co_filename.startswith(passed):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"

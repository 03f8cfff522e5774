"""Weights of PyTorch modules by name: read, replaced, whole or of one part."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mconv import samples
from mconv.contracts import Model
from mconv.errors import SourceError, StepError, UnsupportedError
from mconv.sources import _named, _torch
from mconv.sources._weighted import Weighted
from mconv.weights import About, Tensor, check_names

if TYPE_CHECKING:
    import numpy as np
    import torch

# What a part is called in the architectures that have it; any other name is the path of a module.
PARTS = {
    "vision": ("vision_model", "vision_tower", "visual", "vision_encoder"),
    "text": ("text_model", "language_model", "text_encoder"),
    "audio": ("audio_model", "audio_tower", "audio_encoder", "encoder"),
    "encoder": ("encoder",),
    "decoder": ("decoder",),
}


def tensor_of(value: torch.Tensor) -> Tensor:
    """Return a torch tensor by its bits.

    Raises UnsupportedError for one that is sparse or of torch's own quantized types.
    """
    import torch

    if value.layout is not torch.strided or value.is_quantized:
        raise UnsupportedError(f"a tensor of {value.dtype} as {value.layout} has no plain bytes")
    flat = value.detach().cpu().contiguous().reshape(-1)
    if value.is_conj() or value.is_neg():
        flat = flat.resolve_conj().resolve_neg()
    dtype = str(value.dtype).removeprefix("torch.")
    return Tensor(dtype, tuple(value.shape), flat.view(torch.uint8).numpy())


def torch_of(tensor: Tensor) -> torch.Tensor:
    """Return the torch tensor of the same bits.

    Raises UnsupportedError for a dtype that torch lacks.
    """
    import numpy as np
    import torch

    dtype = getattr(torch, tensor.dtype, None)
    if dtype is None:
        raise UnsupportedError(f"torch has no dtype {tensor.dtype}")
    if not tensor.data.nbytes:
        return torch.empty(tensor.shape, dtype=dtype)
    return torch.from_numpy(np.array(tensor.data)).view(dtype).reshape(tensor.shape)


def is_converted(stored: torch.Tensor, value: torch.Tensor) -> bool:
    """Return whether ``value`` is ``stored`` in the type that the model runs in, bit for bit."""
    import torch

    if stored.shape != value.shape:
        return False
    converted = stored.to(value.dtype).contiguous().reshape(-1)
    flat = value.detach().contiguous().reshape(-1)
    return torch.equal(converted.view(torch.uint8), flat.view(torch.uint8))


def find_part(module: torch.nn.Module, part: str) -> str:
    """Return the path of the submodule that ``part`` means.

    Raises UnsupportedError, naming the parts that there are, for one that there is not, and for
    modules that cannot be taken apart.
    """
    import torch

    if isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule):
        raise UnsupportedError(
            "parts of TorchScript archives and exported programs cannot be taken",
            hint="take the whole model",
        )
    paths = {path for path, _ in module.named_modules()}
    base = getattr(module, "base_model_prefix", "")
    for name in (*PARTS.get(part, ()), part):
        for prefix in ("", "model.", f"{base}." if base else ""):
            if name and prefix + name in paths:
                return prefix + name
    known = [name for name in PARTS if _has_part(paths, name)]
    known += [name for name, _ in module.named_children()]
    raise UnsupportedError(
        f"the model has no part {part!r}; it has: {', '.join(dict.fromkeys(known)) or 'none'}",
        hint="or name a module by its path",
    )


def _has_part(paths: set[str], part: str) -> bool:
    """Return whether one of the modules at ``paths`` is what ``part`` is called somewhere."""
    return any(name in paths or f"model.{name}" in paths for name in PARTS[part])


class _InnerModel:
    """A module inside a larger one: the whole model runs, and what the module answered in it is the
    output.

    Attributes:
        whole: The model.
        part: The module.
        inputs: The model's inputs.
        outputs: The module's outputs.
        parameters: How many weights the module has.
    """

    def __init__(self, whole: _torch.TorchModel, part: torch.nn.Module) -> None:
        self.whole = whole
        self.part = part
        self.inputs = whole.inputs
        self.parameters: int | None = sum(p.numel() for p in part.parameters())
        feeds = whole.draw(2, samples.SEED, {})
        answers = [self.run(feed) for feed in feeds]
        self.outputs = _named.infer_output_specs(answers, feeds, self.inputs)

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> list[Mapping[str, np.ndarray]] | None:
        """Return the whole model's samples."""
        return self.whole.samples(count, seed, dims, calibration=calibration)

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the answers of every call of the module in one run of the whole: those of several
        calls as ``call_0_…``.

        Raises SourceError where it is not called.
        """
        calls: list[dict[str, np.ndarray]] = []

        def record(_module: torch.nn.Module, _arguments: object, answer: object) -> None:
            calls.append({n: _copy_array(t) for n, t in _torch.flatten(answer).items()})

        handle = self.part.register_forward_hook(record)
        try:
            self.whole.run(feed)
        finally:
            handle.remove()
        if not calls:
            raise SourceError(
                "the model does not call this part when it runs",
                hint="name a part that it does, or its parent",
            )
        if len(calls) == 1:
            return calls[0]
        answers = {}
        for index, call in enumerate(calls):
            for name, array in call.items():
                answers[f"call_{index}_{name}"] = array
        return answers


def _copy_array(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor's values, floats as float32, which later calls do not change."""
    if tensor.is_floating_point():
        return tensor.detach().float().numpy().copy()
    return tensor.numpy()


def _load_alone(
    whole: _torch.TorchModel, part: torch.nn.Module, untrained: Sequence[str]
) -> _torch.TorchModel | None:
    """Return the part on its own, where the model's inputs are all that its forward() needs; else
    None. An output of a pooler without weights is left out."""
    parameters = inspect.signature(part.forward).parameters
    needed = {
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    specs = tuple(spec for spec in whole.inputs if spec.name in parameters)
    names = {spec.name for spec in specs}
    if not specs or not needed <= names:
        return None

    def draw_feeds(
        count: int, seed: int, dims: Mapping[str, int], calibration: bool
    ) -> list[Mapping[str, np.ndarray]]:
        feeds = whole.samples(count, seed, dims, calibration=calibration)
        if feeds is None:
            feeds = whole.draw(count, seed, dims)
        return [{name: array for name, array in feed.items() if name in names} for feed in feeds]

    keep = None
    if any("pooler" in name for name in untrained):
        outputs = _torch.TorchModel(part, specs, sampler=draw_feeds).run(
            draw_feeds(1, 0, {}, False)[0]
        )
        keep = [name for name in outputs if name != "pooler_output"]
    return _torch.TorchModel(part, specs, sampler=draw_feeds, keep=keep)


class Origin(Protocol):
    """Where a module's weights come from."""

    def describe(self, module: torch.nn.Module, path: str | None) -> About:
        """Return what the weights are of: ``module``, which lies at ``path`` in the model, None for
        the model itself."""

    def read(self, name: str, value: torch.Tensor) -> torch.Tensor | None:
        """Return a tensor as the source's file has it, where the module's ``value`` is a conversion
        of it; else None."""

    def copy_files(
        self, module: torch.nn.Module, path: str | None, inputs: Sequence[str], out: Path
    ) -> None:
        """Copy what goes beside the weights of a module with these inputs into ``out``."""


class TorchWeights(Weighted[Model]):
    """A module's state by name, and the module that runs with it.

    Attributes:
        origin: Where the weights come from.
        module: The module: the model's, or a part of it.
        path: The part's path in the model; None is all of it.
        state: Parameters and buffers by their names in the model, those without weights left out.
        aliases: Names of tensors that share the memory of another: alias → name.
        about: What the weights are of.
    """

    def __init__(
        self,
        model: _torch.TorchModel,
        origin: Origin,
        *,
        part: str | None,
        untrained: Sequence[str] = (),
    ) -> None:
        """``untrained``: names of the state dict that the source has no weights for.

        Raises UnsupportedError for a part that there is not.
        """
        path = find_part(model.module, part) if part is not None else ""
        prefix = f"{path}." if path else ""
        self.origin = origin
        self.path = path or None
        self.module: torch.nn.Module = model.module.get_submodule(path) if path else model.module
        self.state: dict[str, torch.Tensor] = {
            name: value
            for name, value in model.module.state_dict().items()
            if name.startswith(prefix) and name not in untrained
        }
        self.aliases: Mapping[str, str] = _find_aliases(self.state)
        running: Model = model
        if path:
            lost = [name for name in untrained if name.startswith(prefix)]
            running = _load_alone(model, self.module, lost) or _InnerModel(model, self.module)
        super().__init__(running)
        self.about = origin.describe(self.module, self.path)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights in the order of the state dict; of names that share memory, the
        first."""
        for name, value in self.state.items():
            if name not in self.aliases:
                yield name, tensor_of(self._read(name, value))

    def _read(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """Return a weight as the source's file has it, under any of its names; else as the model
        does."""
        for known in (name, *(a for a, first in self.aliases.items() if first == name)):
            stored = self.origin.read(known, value)
            if stored is not None:
                return stored
        return value

    def copy_files(self, out: Path) -> None:
        """Copy what goes beside the weights."""
        self.origin.copy_files(self.module, self.path, [spec.name for spec in self.inputs], out)

    def replace(self, tensors: Mapping[str, Tensor]) -> None:
        """Erase every weight, then take those of ``tensors``, in place, so that tied weights stay
        tied. A float that the model runs in another width is converted.

        Raises StepError where one is missing, unknown or of another shape.
        """
        import torch

        check_names(self.state, tensors, "what was read")
        with torch.no_grad():
            for value in self.state.values():
                is_float = value.is_floating_point() or value.is_complex()
                value.fill_(float("nan") if is_float else 0)
            for name, value in self.state.items():
                replacement = torch_of(tensors[name])
                if replacement.shape != value.shape:
                    raise StepError(
                        f"weight {name!r} has shape {list(replacement.shape)}, the model takes "
                        f"{list(value.shape)}"
                    )
                value.copy_(replacement)


def _find_aliases(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return name → an earlier name of the same memory, shape, strides and type."""
    first: dict[tuple[object, ...], str] = {}
    aliases = {}
    for name, value in state.items():
        if value.numel():
            memory = (value.data_ptr(), tuple(value.shape), value.stride(), value.dtype)
            earlier = first.setdefault(memory, name)
            if earlier != name:
                aliases[name] = earlier
    return aliases


class _RepositoryModule:
    """A module of the repository, or of an archive.

    Attributes:
        stored: The tensors of the weights file where it holds only those.
    """

    def __init__(self, stored: Mapping[str, torch.Tensor]) -> None:
        self.stored = stored

    def describe(self, module: torch.nn.Module, path: str | None) -> About:
        """Return the module's class and the number of its parameters."""
        return About(
            format="pytorch",
            # of a script, the class that it was made of
            architecture=getattr(module, "original_name", None) or type(module).__name__,
            part=path,
            parameters=sum(p.numel() for p in module.parameters()),
        )

    def read(self, name: str, value: torch.Tensor) -> torch.Tensor | None:
        """Return the file's tensor of that name, where ``value`` is a conversion of it."""
        stored = self.stored.get(name)
        return stored if stored is not None and is_converted(stored, value) else None

    def copy_files(
        self, module: torch.nn.Module, path: str | None, inputs: Sequence[str], out: Path
    ) -> None:
        """Copy nothing: the code that builds the module stays in the repository."""


def open_pytorch(
    model: _torch.TorchModel, part: str | None, stored: Mapping[str, torch.Tensor]
) -> TorchWeights:
    """Return the weights of a module of the repository, or of an archive. ``stored``: the tensors
    of the weights file where it holds only those.

    Raises UnsupportedError for a part that there is not.
    """
    return TorchWeights(model, _RepositoryModule(stored), part=part)

"""Weights of PyTorch modules by name: read, replaced, whole or of one part; and of Hugging Face
checkpoints as they are stored."""

from __future__ import annotations

import contextlib
import inspect
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv import samples
from mconv.errors import SourceError, StepError, UnsupportedError
from mconv.sources import _named, _torch
from mconv.sources._weighted import Weighted
from mconv.values import TensorSpec
from mconv.weights import About, Tensor, check_names

if TYPE_CHECKING:
    import numpy as np

# What a part is called in the architectures that have it; any other name is the path of a module.
PARTS = {
    "vision": ("vision_model", "vision_tower", "visual", "vision_encoder"),
    "text": ("text_model", "language_model", "text_encoder"),
    "audio": ("audio_model", "audio_tower", "audio_encoder", "encoder"),
    "encoder": ("encoder",),
    "decoder": ("decoder",),
}
TOKENIZER = (
    *(
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.txt",
        "vocab.json",
    ),
    *(
        "merges.txt",
        "normalizer.json",
        "spiece.model",
        "sentencepiece.bpe.model",
        "tokenizer.model",
        "chat_template.jinja",
    ),
    *("chat_template.json", "bpe.codes", "source.spm", "target.spm"),
)
PREPROCESSOR = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
OTHERS = ("config.json", "generation_config.json")
CHECKPOINTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def tensor_of(value: Any) -> Tensor:
    """A torch tensor by its bits. Raises UnsupportedError for one that is sparse or of torch's own
    quantized types."""
    import torch

    if value.layout is not torch.strided or value.is_quantized:
        raise UnsupportedError(f"a tensor of {value.dtype} as {value.layout} has no plain bytes")
    flat = value.detach().cpu().contiguous().reshape(-1)
    if value.is_conj() or value.is_neg():
        flat = flat.resolve_conj().resolve_neg()
    return Tensor(
        str(value.dtype).removeprefix("torch."), tuple(value.shape), flat.view(torch.uint8).numpy()
    )


def torch_of(tensor: Tensor) -> Any:
    """The torch tensor of the same bits. Raises UnsupportedError for a dtype that torch lacks."""
    import numpy as np
    import torch

    dtype = getattr(torch, tensor.dtype, None)
    if dtype is None:
        raise UnsupportedError(f"torch has no dtype {tensor.dtype}")
    if not tensor.data.nbytes:
        return torch.empty(tensor.shape, dtype=dtype)
    return torch.from_numpy(np.array(tensor.data)).view(dtype).reshape(tensor.shape)


def find_part(module: Any, part: str) -> str:
    """The path of the submodule that ``part`` means. Raises UnsupportedError naming the parts that
    there are."""
    import torch

    if isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule):
        raise UnsupportedError(
            "parts of TorchScript archives and exported programs cannot be taken",
            hint="take the whole model",
        )
    names = dict(module.named_modules())
    base = getattr(module, "base_model_prefix", "")
    for name in (*PARTS.get(part, ()), part):
        for prefix in ("", "model.", f"{base}." if base else ""):
            if name and prefix + name in names:
                return prefix + name
    known = [p for p in PARTS if any(pre + n in names for n in PARTS[p] for pre in ("", "model."))]
    listed = ", ".join(dict.fromkeys([*known, *(n for n, _ in module.named_children())])) or "none"
    raise UnsupportedError(
        f"the model has no part {part!r}; it has: {listed}", hint="or name a module by its path"
    )


class _Inside:
    """A module inside a larger one: the whole model runs, and what the module answered in it is the
    output."""

    parameters: int | None

    def __init__(self, whole: _torch.TorchModel, part: Any) -> None:
        self.whole = whole
        self.part = part
        self.inputs: tuple[TensorSpec, ...] = whole.inputs
        self.parameters = sum(p.numel() for p in part.parameters())
        feeds = whole.samples(2, samples.SEED, {}) or []
        self.outputs: tuple[TensorSpec, ...] = _named.output_specs(
            [self.run(f) for f in feeds], feeds, self.inputs
        )

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> list[Mapping[str, np.ndarray]] | None:
        return self.whole.samples(count, seed, dims, calibration=calibration)

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The answers of every call of the module in one run of the whole. Raises SourceError where
        it is not called."""
        calls: list[dict[str, np.ndarray]] = []

        def keep(_module: Any, _args: Any, answer: Any) -> None:
            flat = _torch.flatten(answer)
            calls.append(
                {
                    n: t.detach().float().numpy().copy() if t.is_floating_point() else t.numpy()
                    for n, t in flat.items()
                }
            )

        handle = self.part.register_forward_hook(keep)
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
        return {
            f"call_{i}_{name}": array
            for i, call in enumerate(calls)
            for name, array in call.items()
        }


def _alone(
    whole: _torch.TorchModel, part: Any, untrained: Sequence[str]
) -> _torch.TorchModel | None:
    """The part on its own, where the model's inputs are all that its forward() needs; else None."""
    parameters = inspect.signature(part.forward).parameters
    needed = {
        n
        for n, p in parameters.items()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    }
    specs = tuple(s for s in whole.inputs if s.name in parameters)
    if not specs or not needed <= {s.name for s in specs}:
        return None
    names = {s.name for s in specs}

    def sampler(
        count: int, seed: int, dims: Mapping[str, int], calibration: bool
    ) -> list[Mapping[str, np.ndarray]] | None:
        feeds = whole.samples(count, seed, dims, calibration=calibration) or []
        return [{name: array for name, array in feed.items() if name in names} for feed in feeds]

    keep = None
    if any("pooler" in name for name in untrained):
        feed = sampler(1, 0, {}, False)[0]  # type: ignore[index]
        outputs = _torch.TorchModel(part, specs, sampler=sampler).run(feed)
        keep = [name for name in outputs if name != "pooler_output"]
    return _torch.TorchModel(part, specs, sampler=sampler, keep=keep)


class TorchWeights(Weighted):
    """A module's state by name, and the module that runs with it. ``stored(name, value)`` gives a
    tensor as the source's file has it, where the module's ``value`` is a conversion of it;
    ``untrained`` are names that the source has no weights for."""

    def __init__(
        self,
        model: _torch.TorchModel,
        about: Callable[[Any, str | None], About],
        *,
        part: str | None,
        stored: Callable[[str, Any], Any],
        copy: Callable[[Any, str | None, Sequence[str], Path], None] | None = None,
        untrained: Sequence[str] = (),
    ) -> None:
        self.whole = model
        self.stored = stored
        self.copy = copy
        path = find_part(model.module, part) if part is not None else ""
        self.module = model.module.get_submodule(path) if path else model.module
        prefix = f"{path}." if path else ""
        self.state = {
            n: v
            for n, v in model.module.state_dict().items()
            if n.startswith(prefix) and n not in untrained
        }
        self.aliases: Mapping[str, str] = _aliases(self.state)
        lost = [n for n in untrained if n.startswith(prefix)]
        super().__init__(
            (_alone(model, self.module, lost) or _Inside(model, self.module)) if path else model
        )
        self.about = about(self.module, path or None)
        self.part = path or None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """In the order of the state dict; of names that share memory, the first."""
        for name, value in self.state.items():
            if name not in self.aliases:
                names = [name, *(a for a, n in self.aliases.items() if n == name)]
                yield (
                    name,
                    tensor_of(
                        next((s for n in names if (s := self.stored(n, value)) is not None), value)
                    ),
                )

    def copy_files(self, out: Path) -> None:
        if self.copy:
            self.copy(self.module, self.part, [s.name for s in self.inputs], out)

    def replace(self, tensors: Mapping[str, Tensor]) -> None:
        """In place, so that tied weights stay tied. A float that the model runs in another width is
        converted."""
        import torch

        check_names(self.state, tensors, "what was read")
        with torch.no_grad():
            for value in self.state.values():
                value.fill_(
                    float("nan")
                ) if value.is_floating_point() or value.is_complex() else value.zero_()
            for name, value in self.state.items():
                given = torch_of(tensors[name])
                if given.shape != value.shape:
                    raise StepError(
                        f"weight {name!r} has shape {list(given.shape)}, the model takes "
                        f"{list(value.shape)}"
                    )
                value.copy_(given)


def _aliases(state: Mapping[str, Any]) -> dict[str, str]:
    """name → an earlier name of the same memory, shape and strides."""
    first: dict[Any, str] = {}
    found = {}
    for name, value in state.items():
        if value.numel():
            key = (value.data_ptr(), tuple(value.shape), value.stride(), value.dtype)
            if (other := first.setdefault(key, name)) != name:
                found[name] = other
    return found


def same_when_converted(stored: Any, value: Any) -> bool:
    """Whether ``value`` is ``stored`` in the type that the model runs in, bit for bit."""
    import torch

    if stored.shape != value.shape:
        return False
    made = stored.to(value.dtype).contiguous().reshape(-1)
    return torch.equal(
        made.view(torch.uint8), value.detach().contiguous().reshape(-1).view(torch.uint8)
    )


class Checkpoint:
    """The tensors of a Hugging Face folder as its files hold them, read one at a time where they
    are safetensors."""

    def __init__(self, path: Path, prefix: str) -> None:
        self.path = path
        self.prefix = prefix
        self.files: dict[str, str] = {}
        self.open: dict[str, Any] = {}
        self.stack = contextlib.ExitStack()
        found = next((name for name in CHECKPOINTS if (path / name).is_file()), None)
        if found is None:
            return
        if found.endswith(".index.json"):
            listed = json.loads((path / found).read_text(encoding="utf-8"))["weight_map"]
            # shards lie beside their index
            self.files = {name: Path(file).name for name, file in listed.items()}
        else:
            self.files = dict.fromkeys(self._reader(found).keys(), found)

    def _reader(self, file: str) -> Any:
        if file not in self.open:
            if file.endswith(".safetensors"):
                from safetensors import safe_open

                self.open[file] = self.stack.enter_context(
                    safe_open(str(self.path / file), framework="pt")
                )
            else:
                import torch

                at = self.path / file
                self.open[file] = torch.load(
                    at, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(at)
                )
        return self.open[file]

    def get(self, name: str) -> Any:
        reader = self._reader(self.files[name])
        return reader[name] if isinstance(reader, Mapping) else reader.get_tensor(name)

    def stored(self, name: str, value: Any) -> Any:
        """The file's tensor that ``value`` was made of: of the same name, or with or without the
        base model's prefix."""
        for known in (name, f"{self.prefix}.{name}", name.removeprefix(f"{self.prefix}.")):
            if known in self.files and same_when_converted(found := self.get(known), value):
                return found
        return None


def open_huggingface(
    model: _torch.TorchModel, path: Path, part: str | None, untrained: Sequence[str]
) -> TorchWeights:
    """A model of transformers: tensors under the names of its state dict, in the dtypes of the
    checkpoint."""
    module = model.module
    checkpoint = Checkpoint(path, getattr(module, "base_model_prefix", ""))

    def config(inner: Any, where: str | None) -> dict[str, Any]:
        if where is None:
            found = json.loads((path / "config.json").read_text(encoding="utf-8"))
        else:
            own = inner.config.to_dict() if hasattr(inner, "config") else {}
            found = (
                {**json.loads(json.dumps(own)), "architectures": [type(inner).__name__]}
                if own
                else {}
            )  # its keys may be numbers
        return {
            k: v for k, v in found.items() if k not in ("_name_or_path", "transformers_version")
        }

    def about(inner: Any, where: str | None) -> About:
        prefix = f"{where}." if where else ""
        notes = [
            f"the checkpoint has no {n}: it is left out" for n in untrained if n.startswith(prefix)
        ]
        parameters = sum(
            p.numel()
            for n, p in module.named_parameters()
            if n.startswith(prefix) and n not in untrained
        )
        return About(
            format="huggingface",
            architecture=type(inner).__name__,
            config=config(inner, where),
            part=where,
            parameters=parameters,
            notes=tuple(notes),
        )

    def copy(inner: Any, where: str | None, inputs: Sequence[str], out: Path) -> None:
        wanted: tuple[str, ...] = (*OTHERS, *TOKENIZER, *PREPROCESSOR)
        if where is not None:
            wanted = TOKENIZER if "input_ids" in inputs else PREPROCESSOR
            text = json.dumps(config(inner, where), indent=2, sort_keys=True)
            (out / "config.json").write_text(text + "\n", encoding="utf-8")
        for name in wanted:
            if (path / name).is_file():
                shutil.copyfile(path / name, out / name)

    return TorchWeights(
        model, about, part=part, stored=checkpoint.stored, copy=copy, untrained=untrained
    )


def open_pytorch(
    model: _torch.TorchModel, part: str | None, raw: Mapping[str, Any]
) -> TorchWeights:
    """A module of the repository, or of an archive; ``raw``: the tensors of the weights file where
    it holds only those."""

    def stored(name: str, value: Any) -> Any:
        return raw[name] if name in raw and same_when_converted(raw[name], value) else None

    def about(inner: Any, where: str | None) -> About:
        name = getattr(inner, "original_name", None) or type(inner).__name__
        return About(
            format="pytorch",
            architecture=name,
            part=where,
            parameters=sum(p.numel() for p in inner.parameters()),
        )

    return TorchWeights(model, about, part=part, stored=stored)

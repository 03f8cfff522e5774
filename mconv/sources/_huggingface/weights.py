"""Weights of Hugging Face folders by name, as their checkpoints store them, and the files that go
beside them."""

from __future__ import annotations

import contextlib
import json
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mconv.sources import _torch
from mconv.sources._huggingface.configuration import read_config
from mconv.sources._weights import TorchWeights, is_converted
from mconv.values import JsonObject
from mconv.weights import About

if TYPE_CHECKING:
    import torch

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "normalizer.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "bpe.codes",
    "source.spm",
    "target.spm",
)
PREPROCESSOR = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
CONFIGURATION = ("config.json", "generation_config.json")
CHECKPOINTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# what config.json says of the machine and the version that wrote it
_PASSING = ("_name_or_path", "transformers_version")


class Safetensors(Protocol):
    """An open safetensors file, such as ``safetensors.safe_open`` gives."""

    def keys(self) -> Iterable[str]:
        """Return the names of its tensors."""

    def get_tensor(self, name: str) -> torch.Tensor:
        """Read a tensor."""


class Checkpoint:
    """The tensors of a Hugging Face folder as its files hold them, read one at a time where they
    are safetensors.

    Attributes:
        path: The folder.
        prefix: What the base model's tensors may have before their names.
        files: Each tensor's file, by the tensor's name.
    """

    def __init__(self, path: Path, prefix: str) -> None:
        self.path = path
        self.prefix = prefix
        self.files: dict[str, str] = {}
        self._readers: dict[str, Mapping[str, torch.Tensor] | Safetensors] = {}
        self._stack = contextlib.ExitStack()
        listed = next((name for name in CHECKPOINTS if (path / name).is_file()), None)
        if listed is None:
            return
        if listed.endswith(".index.json"):
            index = json.loads((path / listed).read_text(encoding="utf-8"))
            # shards lie beside their index
            self.files = {name: Path(file).name for name, file in index["weight_map"].items()}
        else:
            self.files = dict.fromkeys(self._open(listed).keys(), listed)

    def _open(self, file: str) -> Mapping[str, torch.Tensor] | Safetensors:
        """Return what reads the tensors of a file; it is opened once."""
        if file not in self._readers:
            path = self.path / file
            if file.endswith(".safetensors"):
                from safetensors import safe_open

                reader = safe_open(str(path), framework="pt")
                self._readers[file] = self._stack.enter_context(reader)
            else:
                import torch

                self._readers[file] = torch.load(
                    path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
                )
        return self._readers[file]

    def get(self, name: str) -> torch.Tensor:
        """Return the tensor of that name."""
        reader = self._open(self.files[name])
        return reader[name] if isinstance(reader, Mapping) else reader.get_tensor(name)

    def find(self, name: str, value: torch.Tensor) -> torch.Tensor | None:
        """Return the file's tensor that ``value`` was made of, which has the same name, or that
        with or without the base model's prefix; None where there is none."""
        for known in (name, f"{self.prefix}.{name}", name.removeprefix(f"{self.prefix}.")):
            if known in self.files:
                stored = self.get(known)
                if is_converted(stored, value):
                    return stored
        return None


class _Folder:
    """A Hugging Face folder, as the origin of a module's weights.

    Attributes:
        path: The folder.
        module: The whole model.
        untrained: Names of its state dict that the checkpoint has no weights for.
        checkpoint: The folder's tensors.
    """

    def __init__(self, path: Path, module: torch.nn.Module, untrained: Sequence[str]) -> None:
        self.path = path
        self.module = module
        self.untrained = untrained
        self.checkpoint = Checkpoint(path, getattr(module, "base_model_prefix", ""))

    def describe(self, module: torch.nn.Module, path: str | None) -> About:
        """Return the class and configuration of a module, and what of it the checkpoint lacks."""
        prefix = f"{path}." if path else ""
        notes = [
            f"the checkpoint has no {name}: it is left out"
            for name in self.untrained
            if name.startswith(prefix)
        ]
        parameters = 0
        for name, parameter in self.module.named_parameters():
            if name.startswith(prefix) and name not in self.untrained:
                parameters += parameter.numel()
        return About(
            format="huggingface",
            architecture=type(module).__name__,
            config=self._read_config(module, path),
            part=path,
            parameters=parameters,
            notes=tuple(notes),
        )

    def _read_config(self, module: torch.nn.Module, path: str | None) -> JsonObject:
        """Return the configuration of the whole model from its file; of a part its own, none where
        it has none."""
        if path is None:
            content = read_config(self.path) or {}
        elif own := module.config.to_dict() if hasattr(module, "config") else {}:
            # its keys may be numbers, which JSON makes texts
            content = {**json.loads(json.dumps(own)), "architectures": [type(module).__name__]}
        else:
            content = {}
        return {key: value for key, value in content.items() if key not in _PASSING}

    def read(self, name: str, value: torch.Tensor) -> torch.Tensor | None:
        """Return the checkpoint's tensor that ``value`` was made of, or None."""
        return self.checkpoint.find(name, value)

    def copy_files(
        self, module: torch.nn.Module, path: str | None, inputs: Sequence[str], out: Path
    ) -> None:
        """Copy configuration, tokenizer and preprocessor; of a part, write its configuration and
        copy what makes its inputs."""
        names: tuple[str, ...] = (*CONFIGURATION, *TOKENIZER, *PREPROCESSOR)
        if path is not None:
            names = TOKENIZER if "input_ids" in inputs else PREPROCESSOR
            text = json.dumps(self._read_config(module, path), indent=2, sort_keys=True)
            (out / "config.json").write_text(text + "\n", encoding="utf-8")
        for name in names:
            if (self.path / name).is_file():
                shutil.copyfile(self.path / name, out / name)


def open_weights(
    model: _torch.TorchModel, path: Path, part: str | None, untrained: Sequence[str]
) -> TorchWeights:
    """Return the weights of a model of transformers, or of a part of it: tensors under the names of
    its state dict, in the dtypes of the checkpoint.

    Raises UnsupportedError for a part that there is not.
    """
    origin = _Folder(path, model.module, untrained)
    return TorchWeights(model, origin, part=part, untrained=untrained)

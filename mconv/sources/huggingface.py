"""Hugging Face folders: config.json, weights, tokenizer or processor; text, vision and audio
architectures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mconv.errors import SourceError, UsageError, one_line
from mconv.sources import _torch
from mconv.sources._huggingface import (
    causal,
    checkpoint,
    configuration,
    decoding,
    generation,
    masks,
)
from mconv.sources._huggingface import parts as model_parts
from mconv.sources._huggingface import weights as weights_of_folder
from mconv.sources._huggingface.inputs import ModelInputs
from mconv.sources._weights import TorchWeights
from mconv.values import ExportInfo, JsonObject, SourceConfig

if TYPE_CHECKING:
    import numpy as np
    import transformers

ENVIRONMENT = "pytorch"
REQUIRES = ("torch>=2.6", "transformers>=4.50", "onnxscript>=0.6.2", "safetensors>=0.4")
TOOLS = (
    "torch",
    "transformers",
    "tokenizers",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "safetensors",
)
PRELOAD = (
    "torch",
    "torch.onnx",
    "transformers",
    "transformers.modeling_utils",
    "transformers.models.auto",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "onnx",
    "onnx_ir",
)
OPTIONS = {
    "task": {
        "enum": list(configuration.TASKS),
        "description": "what the model is for (default: detected from config.json)",
    },
    "cache": {
        "type": "boolean",
        "description": "keys and values of earlier tokens as inputs and outputs (default: false; "
        "true of an encoder-decoder)",
    },
    "parts": {
        "type": "array",
        "items": {"enum": list(model_parts.NAMES)},
        "description": "which parts are made, a folder each (default: encoder, decoder and "
        "decoder_with_past of an encoder-decoder "
        "that writes text; else the whole); `vision`, `text` of CLIP-like models",
    },
}
# outputs that the whole model has only while it trains, generates or decodes
INNER_OUTPUTS = ("past_key_values", "encoder_last_hidden_state", "loss")


def detect(path: Path) -> bool:
    """Return whether it is a folder with weights and a config.json that names its model type or
    architectures."""
    if not path.is_dir() or not _has_weights(path):
        return False
    content = configuration.read_config(path)
    return content is not None and ("model_type" in content or "architectures" in content)


def _has_weights(path: Path) -> bool:
    return any((path / name).is_file() for name in weights_of_folder.CHECKPOINTS)


def check(config: SourceConfig) -> None:
    """Raise UsageError for a folder without config or weights, one whose model is code of its own,
    and options that do not fit the model."""
    path = Path(config.path)
    content = configuration.read_config(path)
    if content is None:
        raise UsageError(
            f"{path.name} has no readable config.json", hint="save the model with save_pretrained()"
        )
    if not _has_weights(path):
        raise UsageError(
            f"{path.name} has no weights ({', '.join(weights_of_folder.CHECKPOINTS[:1])} …)",
            hint="with Git LFS, fetch them (lfs: true)",
        )
    if "auto_map" in content:
        raise UsageError(
            f"{path.name} needs code of its own (auto_map in config.json), which mconv does not "
            "run",
            hint="use a `pytorch` source with a factory that builds the model",
        )
    _check_parts(config, content)


def _check_parts(config: SourceConfig, content: JsonObject) -> None:
    """Raise UsageError for parts that the model has not, and a cache that it does not use."""
    name = Path(config.path).name
    offered = _offered_parts(content)
    chosen: Sequence[str] = config.options.get("parts") or ()
    if unknown := [part for part in chosen if part not in offered]:
        raise UsageError(
            f"{name} has no part {', '.join(unknown)}",
            hint=f"it can be made as {', '.join(offered)}",
        )
    if len(set(chosen)) < len(chosen) or (model_parts.WHOLE in chosen and len(chosen) > 1):
        raise UsageError("`parts` names each part once, and `whole` stands alone")
    cache = config.options.get("cache")
    generates = configuration.writes_text(content) or (
        checkpoint.task_of(config, content) == "text-generation"
    )
    if cache and not generates:
        raise UsageError(f"{name} generates nothing: it has no `cache`")
    if cache is False and decoding.WITH_PAST in chosen:
        raise UsageError("`decoder_with_past` is the part that `cache: false` leaves out")


def _offered_parts(content: JsonObject) -> tuple[str, ...]:
    """Return the parts that a model of this config.json can be made as."""
    if configuration.writes_text(content):
        return (*model_parts.SEQ2SEQ, model_parts.WHOLE)
    if configuration.has_two_towers(content):
        return (*model_parts.TWO_TOWERS, model_parts.WHOLE)
    return (model_parts.WHOLE,)


def parts(config: SourceConfig) -> tuple[str, ...]:
    """Return the parts that the manifest names; without that all three of an encoder-decoder that
    writes text, two without ``cache``, and none of other models."""
    if chosen := config.options.get("parts"):
        return () if list(chosen) == [model_parts.WHOLE] else tuple(chosen)
    if not configuration.writes_text(configuration.read_config(Path(config.path)) or {}):
        return ()
    return model_parts.SEQ2SEQ if config.options.get("cache", True) else model_parts.SEQ2SEQ[:2]


def load(config: SourceConfig) -> _torch.TorchModel:
    """Return the model, or the part that ``config`` names, with eager attention; without cache
    unless the manifest says otherwise. Outputs that come of weights missing in the files are left
    out.

    Raises SourceError where transformers cannot load it, or the files lack weights that count.
    """
    import torch

    torch.manual_seed(0)
    module, missing = checkpoint.load_module(config)
    path = Path(config.path)
    inputs = ModelInputs(module, path)
    cache = bool(config.options.get("cache", bool(config.part)))
    if config.part:
        _check_complete(path, missing)
        return model_parts.load_part(module.eval(), config.part, inputs, cache=cache)
    if cache and not module.config.is_encoder_decoder:
        _check_complete(path, missing)
        return causal.load_causal_with_past(module.eval(), inputs)
    return _load_whole(config, module, inputs, missing)


def _load_whole(
    config: SourceConfig,
    module: transformers.PreTrainedModel,
    inputs: ModelInputs,
    missing: Sequence[str],
) -> _torch.TorchModel:
    """Return the whole model without cache. A pooler that the files have no weights for is no
    reason to refuse it: it was saved without one, so its output is left out."""
    import torch

    specs = config.inputs or inputs.list_specs()

    def draw_feeds(
        count: int, seed: int, dims: Mapping[str, int], calibration: bool
    ) -> list[Mapping[str, np.ndarray]]:
        return list(inputs.make_feeds(specs, count, seed, dims, calibration))

    of_pooler = [name for name in missing if "pooler" in name]
    _check_complete(Path(config.path), [name for name in missing if name not in of_pooler])
    module.eval()
    feed = inputs.make_feeds(specs, 1, 0, {})[0]
    left_out = inputs.list_left_out(specs)
    try:
        with torch.inference_mode():
            answer = module(**{name: torch.from_numpy(array) for name, array in feed.items()})
    except Exception as problem:  # the model's code may raise anything
        raise SourceError(
            f"the model's forward() raised {type(problem).__name__}, given "
            f"{', '.join(feed)}: {one_line(problem, 300)}",
            hint=f"it also takes {', '.join(left_out)}: name all that it needs in `inputs:`"
            if left_out
            else "name other inputs, or other shapes, in `inputs:`",
        ) from problem
    dropped = (*INNER_OUTPUTS, "pooler_output") if of_pooler else INNER_OUTPUTS
    keep = [
        name
        for name in _torch.flatten(dict(answer.items()))
        if name not in dropped and "past_key" not in name
    ]
    model = _torch.TorchModel(
        module, specs, sampler=draw_feeds, keep=keep, processor=partial(inputs.process, specs)
    )
    model.untrained = tuple(missing)
    model.left_out = tuple(left_out)
    return model


def weights(config: SourceConfig, part: str | None) -> TorchWeights:
    """Return the checkpoint's tensors under the model's names; of a part, those of its module."""
    # options of graphs, not of weights
    options = {k: v for k, v in config.options.items() if k not in ("cache", "parts")}
    model = load(msgspec.structs.replace(config, options=options, part=""))
    return weights_of_folder.open_weights(model, Path(config.path), part, model.untrained)


def _check_complete(path: Path, missing: Sequence[str]) -> None:
    """Raise SourceError where the files lack weights."""
    if missing:
        raise SourceError(
            f"{path.name} lacks weights: "
            f"{', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}",
            hint="is `task` right for this checkpoint?",
        )


def export(config: SourceConfig, out: Path) -> ExportInfo:
    """Write ``model.onnx`` by PyTorch's exporters. Raises UnsupportedError with each exporter's
    reason where none gives a right graph."""
    model = load(config)
    with masks.broadcast_masks():
        info = _torch.export(model, out)
    if not model.left_out:
        return info
    warning = (
        f"forward() also takes {', '.join(model.left_out)}: the artifact answers as without; to "
        "have them, name all inputs in `inputs:`"
    )
    return msgspec.structs.replace(info, warnings=(*info.warnings, warning))


def prompts(config: SourceConfig) -> list[dict[str, np.ndarray]]:
    """Return what generation is checked with: a first feed, and under ``tokens``, int64 [rows,
    tokens], what ``model.generate()`` makes of it, greedily.

    Empty for models that generate nothing, or where not all parts that it takes are made.
    """
    return generation.make_prompts(config, parts(config))


def generate(
    config: SourceConfig,
    run: Mapping[str, decoding.Call],
    prompt: Mapping[str, np.ndarray],
    count: int,
) -> np.ndarray:
    """Return greedy tokens of the artifact's parts, int64 [batch, count]."""
    return decoding.generate_tokens(run, prompt, count)

"""Models, tokenizers and processors of a Hugging Face folder, loaded by transformers from local
files only, without running code of the folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mconv.errors import SourceError, one_line
from mconv.sources._huggingface import configuration
from mconv.values import JsonObject, SourceConfig

if TYPE_CHECKING:
    import transformers

    # transformers' from_pretrained() with output_loading_info=True
    Loader = Callable[..., tuple[transformers.PreTrainedModel, dict[str, Sequence[str]]]]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
PROCESSOR_FILES = ("preprocessor_config.json",)


def task_of(config: SourceConfig, content: JsonObject) -> str:
    """Return the task that the manifest names, else the one that config.json, whose ``content``
    this is, tells."""
    return str(config.options.get("task") or configuration.find_task(content))


def load_module(config: SourceConfig) -> tuple[transformers.PreTrainedModel, list[str]]:
    """Return the module in float32, without cache, and the sorted names of the weights that the
    files lack.

    Raises SourceError with transformers' reason where it cannot load the folder.
    """
    import transformers

    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    path = Path(config.path)
    try:
        model, missing = _load_eager(config, path)
    except Exception as problem:
        # transformers raises OSError, ValueError, RuntimeError, safetensors' own …
        raise SourceError(
            f"transformers cannot load {path.name}: {type(problem).__name__}: "
            f"{one_line(problem, 600)}",
            hint="is the folder complete?",
        ) from problem
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    model.config.return_dict = True
    return model, missing


def _load_eager(config: SourceConfig, path: Path) -> tuple[transformers.PreTrainedModel, list[str]]:
    """Load with eager attention where the architecture has a choice: exporters translate it best.
    The class that config.json names is used unless the manifest says for what task."""
    import transformers

    content = configuration.read_config(path) or {}
    known = [n for n in configuration.list_architectures(content) if hasattr(transformers, n)]
    settings: dict[str, str | bool] = {
        "local_files_only": True,
        name_dtype_option(): "float32",
        "output_loading_info": True,
    }
    load: Loader
    if known and "task" not in config.options:
        load = getattr(transformers, known[0]).from_pretrained
    else:
        load = getattr(transformers, _auto_class(config, content)).from_pretrained
        settings["trust_remote_code"] = False
    try:
        model, info = load(str(path), attn_implementation="eager", **settings)
    except ValueError as problem:
        reason = str(problem)
        if "attn_implementation" not in reason and "attention" not in reason.lower():
            raise
        model, info = load(str(path), **settings)
    return model, sorted(str(name) for name in info.get("missing_keys", ()))


def name_dtype_option() -> str:
    """Return the name of from_pretrained()'s option for the type of weights: releases before 4.56
    keep it in a configuration as ``torch_dtype``, and take no other word for it."""
    import transformers

    return "dtype" if hasattr(transformers.PretrainedConfig(), "dtype") else "torch_dtype"


def _auto_class(config: SourceConfig, content: JsonObject) -> str:
    """Return the name of transformers' Auto class for the model's task."""
    auto = configuration.TASKS[task_of(config, content)]
    if auto == "AutoModelForCTC" and content.get("is_encoder_decoder"):
        return configuration.SPEECH
    return auto


def load_tokenizer(path: Path) -> transformers.PreTrainedTokenizerBase | None:
    """Return the folder's tokenizer, or None where it has none. Raises SourceError for one that
    cannot be loaded."""
    return _load_tool(path, "AutoTokenizer", TOKENIZER_FILES)


def load_image_processor(path: Path) -> transformers.BaseImageProcessor | None:
    """Return the folder's image processor, or None where it has none. Raises SourceError for one
    that cannot be loaded."""
    return _load_tool(path, "AutoImageProcessor", PROCESSOR_FILES)


def load_feature_extractor(path: Path) -> transformers.FeatureExtractionMixin | None:
    """Return the folder's extractor of features of sound, or None where it has none. Raises
    SourceError for one that cannot be loaded."""
    return _load_tool(path, "AutoFeatureExtractor", PROCESSOR_FILES)


def _load_tool(
    path: Path, auto: str, files: Sequence[str]
) -> transformers.PreTrainedTokenizerBase | transformers.ProcessorMixin | None:
    """Load with the Auto class ``auto`` what one of ``files`` describes."""
    import transformers

    if not any((path / name).is_file() for name in files):
        return None
    try:
        return getattr(transformers, auto).from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
    except Exception as problem:  # as many kinds as there are tools
        raise SourceError(
            f"the {auto.removeprefix('Auto').lower()} in {path.name} cannot be loaded: "
            f"{one_line(problem, 400)}"
        ) from problem

"""Hugging Face folders: config.json, weights, tokenizer or processor; text, vision and audio
architectures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mconv import samples
from mconv.errors import SourceError, UsageError
from mconv.sources import _greedy, _parts, _plausible, _torch, _weights
from mconv.values import ExportInfo, SourceConfig, TensorSpec

if TYPE_CHECKING:
    import numpy as np

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
TASKS = {
    "feature-extraction": "AutoModel",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "fill-mask": "AutoModelForMaskedLM",
    "text-generation": "AutoModelForCausalLM",
    "image-classification": "AutoModelForImageClassification",
    "object-detection": "AutoModelForObjectDetection",
    "audio-classification": "AutoModelForAudioClassification",
    "automatic-speech-recognition": "AutoModelForCTC",
    "text2text-generation": "AutoModelForSeq2SeqLM",
}
OPTIONS = {
    "task": {
        "enum": list(TASKS),
        "description": "what the model is for (default: detected from config.json)",
    },
    "cache": {
        "type": "boolean",
        "description": "keys and values of earlier tokens as inputs and outputs (default: false; "
        "true of an encoder-decoder)",
    },
    "parts": {
        "type": "array",
        "items": {"enum": list(_parts.NAMES)},
        "description": "which parts are made, a folder each (default: encoder, decoder and "
        "decoder_with_past of an encoder-decoder "
        "that writes text; else the whole); `vision`, `text` of CLIP-like models",
    },
}
_SUFFIXES = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForImageClassification": "image-classification",
    "ForObjectDetection": "object-detection",
    "ForAudioClassification": "audio-classification",
    "ForCTC": "automatic-speech-recognition",
    "MTModel": "text2text-generation",
}
SPEECH = "AutoModelForSpeechSeq2Seq"  # instead of CTC where the model is an encoder-decoder
TOKENS = 32  # that generation is checked for
GENERATION_ROWS = 2
MAX_LENGTH = 128
SECONDS = 1.0


def detect(path: Path) -> bool:
    """A folder with weights and a config.json that names its model type or architectures."""
    if not path.is_dir() or not any((path / name).is_file() for name in _weights.CHECKPOINTS):
        return False
    config = _config(path)
    return config is not None and ("model_type" in config or "architectures" in config)


def _config(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def check(config: SourceConfig) -> None:
    """Raises UsageError for a folder without config or weights, or one whose model is code of its
    own."""
    path = Path(config.path)
    found = _config(path)
    if found is None:
        raise UsageError(
            f"{path.name} has no readable config.json", hint="save the model with save_pretrained()"
        )
    if not any((path / name).is_file() for name in _weights.CHECKPOINTS):
        raise UsageError(
            f"{path.name} has no weights ({', '.join(_weights.CHECKPOINTS[:1])} …)",
            hint="with Git LFS, fetch them (lfs: true)",
        )
    if "auto_map" in found:
        raise UsageError(
            f"{path.name} needs code of its own (auto_map in config.json), which mconv does not "
            "run",
            hint="use a `pytorch` source with a factory that builds the model",
        )
    offered = _offered(found)
    chosen = config.options.get("parts") or ()
    if unknown := [p for p in chosen if p not in offered]:
        raise UsageError(
            f"{path.name} has no part {', '.join(unknown)}",
            hint=f"it can be made as {', '.join(offered)}",
        )
    if len(set(chosen)) < len(chosen) or (_parts.WHOLE in chosen and len(chosen) > 1):
        raise UsageError("`parts` names each part once, and `whole` stands alone")
    if config.options.get("cache") and not (
        writes_text(found) or task(config, found) == "text-generation"
    ):
        raise UsageError(f"{path.name} generates nothing: it has no `cache`")
    if config.options.get("cache") is False and _greedy.WITH_PAST in chosen:
        raise UsageError("`decoder_with_past` is the part that `cache: false` leaves out")


def _offered(about: Mapping[str, Any]) -> tuple[str, ...]:
    if writes_text(about):
        return (*_parts.SEQ2SEQ, _parts.WHOLE)
    towers = "text_config" in about and "vision_config" in about and not _generates(about)
    return (*_parts.TWO_TOWERS, _parts.WHOLE) if towers else (_parts.WHOLE,)


def _generates(about: Mapping[str, Any]) -> bool:
    return any(
        a.endswith(("ForConditionalGeneration", "ForCausalLM", "LMHeadModel"))
        for a in about.get("architectures") or ()
    )


def writes_text(about: Mapping[str, Any]) -> bool:
    """Whether it is an encoder-decoder with a head over a vocabulary."""
    heads = ("ForConditionalGeneration", "MTModel", "ForSpeechSeq2Seq")
    return bool(about.get("is_encoder_decoder")) and any(
        a.endswith(heads) for a in about.get("architectures") or ()
    )


def parts(config: SourceConfig) -> tuple[str, ...]:
    """The parts asked for; of an encoder-decoder that writes text all three, two without `cache`;
    none of other models."""
    about = _config(Path(config.path)) or {}
    if chosen := config.options.get("parts"):
        return () if list(chosen) == [_parts.WHOLE] else tuple(chosen)
    if not writes_text(about):
        return ()
    return _parts.SEQ2SEQ if config.options.get("cache", True) else _parts.SEQ2SEQ[:2]


def task(config: SourceConfig, about: Mapping[str, Any]) -> str:
    return str(config.options.get("task") or task_of(about))


def task_of(config: Mapping[str, Any]) -> str:
    """The task by the architecture's name; plain encoders are for feature extraction."""
    if writes_text(config):
        heard = "num_mel_bins" in config or "speech" in str(config.get("model_type"))
        return "automatic-speech-recognition" if heard else "text2text-generation"
    for architecture in config.get("architectures") or ():
        for suffix, task in _SUFFIXES.items():
            if architecture.endswith(suffix):
                return task
    return "feature-extraction"


def _load(config: SourceConfig) -> Any:
    """The module, from local files only. Raises SourceError with transformers' reason."""
    import transformers

    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    path = Path(config.path)
    about = _config(path) or {}
    asked = task(config, about)
    auto = (
        SPEECH
        if TASKS[asked] == "AutoModelForCTC" and about.get("is_encoder_decoder")
        else TASKS[asked]
    )
    names = [n for n in about.get("architectures") or () if hasattr(transformers, n)]
    own = getattr(transformers, names[0]) if names and "task" not in config.options else None
    loader = own or getattr(transformers, auto)
    settings: dict[str, Any] = {
        "local_files_only": True,
        "dtype": "float32",
        "output_loading_info": True,
    }
    if own is None:
        settings["trust_remote_code"] = False
    try:
        try:
            model, info = loader.from_pretrained(str(path), attn_implementation="eager", **settings)
        except ValueError as problem:
            if (
                "attn_implementation" not in str(problem)
                and "attention" not in str(problem).lower()
            ):
                raise
            model, info = loader.from_pretrained(str(path), **settings)
    except Exception as problem:
        # transformers raises OSError, ValueError, RuntimeError, safetensors' own …
        said = " ".join(str(problem).split())[:600]
        raise SourceError(
            f"transformers cannot load {path.name}: {type(problem).__name__}: {said}",
            hint="is the folder complete?",
        ) from problem
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    model.config.return_dict = True
    return model, sorted(str(k) for k in info.get("missing_keys", ()))


def _tool(path: Path, auto: str, files: Sequence[str]) -> Any:
    """A tokenizer or processor of the folder, or None where its files are not there."""
    import transformers

    if not any((path / name).is_file() for name in files):
        return None
    try:
        return getattr(transformers, auto).from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
    except Exception as problem:
        raise SourceError(
            f"the {auto[4:].lower()} in {path.name} cannot be loaded: "
            f"{' '.join(str(problem).split())[:400]}"
        ) from problem


class _Inputs:
    """Inputs of a model by its main one, and how plausible feeds for them are made."""

    def __init__(self, model: Any, path: Path) -> None:
        self.config = model.config
        self.main = model.main_input_name
        self.accepts = list(_parameters(model))
        self.path = path
        self.tokenizer = None
        self.processor = None
        if self.main == "input_ids":
            self.tokenizer = _tool(
                path, "AutoTokenizer", ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
            )
        elif self.main == "pixel_values":
            self.processor = _tool(path, "AutoImageProcessor", ("preprocessor_config.json",))
        else:
            self.processor = _tool(path, "AutoFeatureExtractor", ("preprocessor_config.json",))

    def specs(self) -> tuple[TensorSpec, ...]:
        if self.main == "input_ids":
            names = [
                n for n in ("input_ids", "attention_mask", "token_type_ids") if n in self.accepts
            ]
            if self.tokenizer is not None:
                names = [
                    n
                    for n in names
                    if n in (*self.tokenizer.model_input_names, "input_ids", "attention_mask")
                ]
            elif not getattr(self.config, "type_vocab_size", 0):
                # GPT-2 would add token 0's embedding to every other
                names = [n for n in names if n != "token_type_ids"]
            specs = [TensorSpec(name=n, dtype="int64", shape=("batch", "sequence")) for n in names]
            if (
                "pixel_values" in self.accepts
                and getattr(self.config, "vision_config", None) is not None
            ):
                specs.append(TensorSpec(name="pixel_values", dtype="float32", shape=self.pixels()))
        elif self.main == "pixel_values":
            specs = [TensorSpec(name="pixel_values", dtype="float32", shape=self.pixels())]
        elif self.main == "input_features":
            frames = 2 * getattr(self.config, "max_source_positions", 1500)
            mels = getattr(self.config, "num_mel_bins", 80)
            specs = [
                TensorSpec(name="input_features", dtype="float32", shape=("batch", mels, frames))
            ]
        elif self.main == "input_values":
            specs = [TensorSpec(name="input_values", dtype="float32", shape=("batch", "samples"))]
        else:
            raise SourceError(
                f"models whose main input is {self.main!r} are not known",
                hint="use a `pytorch` source with a factory",
            )
        if (
            getattr(self.config, "is_encoder_decoder", False)
            and "decoder_input_ids" in self.accepts
        ):
            specs.append(
                TensorSpec(
                    name="decoder_input_ids", dtype="int64", shape=("batch", "decoder_sequence")
                )
            )
        return tuple(specs)

    def pixels(self) -> tuple[int | str, ...]:
        about = getattr(self.config, "vision_config", None) or self.config
        size = getattr(about, "image_size", None) or 224
        height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
        if self.processor is not None and getattr(about, "image_size", None) is None:
            wanted = (
                getattr(self.processor, "crop_size", None)
                or getattr(self.processor, "size", None)
                or {}
            )
            edge = wanted.get("shortest_edge") if hasattr(wanted, "get") else None
            height = (wanted.get("height") if hasattr(wanted, "get") else None) or edge or height
            width = (wanted.get("width") if hasattr(wanted, "get") else None) or edge or width
        return ("batch", getattr(about, "num_channels", 3), height, width)

    def samples(
        self,
        specs: Sequence[TensorSpec],
        count: int,
        seed: int,
        dims: Mapping[str, int],
        calibration: bool = False,
    ) -> list[dict[str, np.ndarray]]:
        """``count`` feeds; batches of 1, 2 and 3 in turn where the batch is free.

        For calibration of 1, and now and then of 2: ranges of activations must have seen padding,
        too."""
        feeds = []
        texts = _plausible.sentences(
            count * (2 if calibration else 3), seed, calibration=calibration
        )
        for index in range(count):
            rows = dims.get(
                "batch", (1, 1, 1, 2)[index % 4] if calibration else (1, 2, 3)[index % 3]
            )
            feed: dict[str, np.ndarray] = {}
            wanted = {s.name: s for s in specs}
            if "input_ids" in wanted:
                chosen = [
                    texts[(index * (2 if calibration else 3) + r) % len(texts)] for r in range(rows)
                ]
                feed |= self.text(chosen, dims.get("sequence"), seed + index, wanted)
            if "pixel_values" in wanted:
                shape = [
                    dims.get(d, d) if isinstance(d, str) else d
                    for d in wanted["pixel_values"].shape
                ]
                feed["pixel_values"] = self.images(
                    rows, int(shape[1]), int(shape[2]), int(shape[3]), seed + index
                )
            if "input_features" in wanted:
                feed["input_features"] = self.features(
                    rows, wanted["input_features"].shape, seed + index
                )
            if "input_values" in wanted:
                length = dims.get("samples", int(16000 * SECONDS * (1 + 0.25 * (index % 3))))
                waves = [
                    _plausible.sound(length, 16000, seed + 100 * index + r) for r in range(rows)
                ]
                feed["input_values"] = _standard(waves)
            if "decoder_input_ids" in wanted:
                feed["decoder_input_ids"] = self.ids(
                    rows, dims.get("decoder_sequence", 5 + index % 3), seed + index, decoder=True
                )
            feeds.append({name: feed[name] for name in wanted})
        return feeds

    def text(
        self, chosen: Sequence[str], length: int | None, seed: int, wanted: Mapping[str, Any]
    ) -> dict[str, np.ndarray]:
        import numpy as np

        if self.tokenizer is None:
            ids = self.ids(len(chosen), length or 8 + seed % 5, seed)
            zeros = np.zeros_like(ids)
            return {
                n: v
                for n, v in {
                    "input_ids": ids,
                    "attention_mask": zeros + 1,
                    "token_type_ids": zeros,
                }.items()
                if n in wanted
            }
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        limit = length or min(
            MAX_LENGTH, getattr(self.config, "max_position_embeddings", MAX_LENGTH) or MAX_LENGTH
        )
        padding = "max_length" if length else "longest"
        made = self.tokenizer(
            list(chosen), padding=padding, truncation=True, max_length=limit, return_tensors="np"
        )
        return {n: np.asarray(made[n], np.int64) for n in wanted if n in made}

    def ids(self, rows: int, length: int, seed: int, *, decoder: bool = False) -> np.ndarray:
        import numpy as np

        about = getattr(self.config, "text_config", None) or self.config
        vocabulary = int(getattr(about, "vocab_size", 1000))
        low = min(10, vocabulary - 1)
        ids = np.random.default_rng(seed).integers(low, vocabulary, (rows, length)).astype(np.int64)
        start = getattr(self.config, "decoder_start_token_id", None)
        if decoder and start is not None:
            ids[:, 0] = start
        return ids

    def images(self, rows: int, channels: int, height: int, width: int, seed: int) -> np.ndarray:
        import numpy as np

        pictures = [_plausible.image(height, width, seed * 31 + r) for r in range(rows)]
        if self.processor is not None and channels == 3:
            size = {"height": height, "width": width}
            made = self.processor(pictures, return_tensors="np", size=size, do_center_crop=False)[
                "pixel_values"
            ]
            return np.asarray(made, np.float32)
        scaled = np.stack(pictures).astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1
        return np.ascontiguousarray(
            scaled if channels == 3 else np.repeat(scaled.mean(1, keepdims=True), channels, 1)
        )

    def features(self, rows: int, shape: Sequence[int | str], seed: int) -> np.ndarray:
        import numpy as np

        waves = [_plausible.sound(16000 * 3, 16000, seed * 17 + r) for r in range(rows)]
        if self.processor is not None:
            made = np.asarray(
                self.processor(waves, sampling_rate=16000, return_tensors="np")["input_features"],
                np.float32,
            )
            if made.shape[1:] == tuple(shape[1:]):
                return made
        mels, frames = int(shape[1]), int(shape[2])
        spectra = [
            np.abs(np.fft.rfft(np.resize(w, frames * 160).reshape(frames, 160), 2 * mels))[
                :, :mels
            ].T
            for w in waves
        ]
        logs = np.log10(np.maximum(np.stack(spectra), 1e-10))
        return ((np.maximum(logs, logs.max() - 8) + 4) / 4).astype(np.float32)


def _standard(waves: Sequence[np.ndarray]) -> np.ndarray:
    """Zero mean and unit variance, as Wav2Vec2's feature extractor does."""
    import numpy as np

    stacked = np.stack(waves)
    return (
        (stacked - stacked.mean(1, keepdims=True)) / np.sqrt(stacked.var(1, keepdims=True) + 1e-7)
    ).astype(np.float32)


def _parameters(model: Any) -> list[str]:
    import inspect

    return list(inspect.signature(model.forward).parameters)


def load(config: SourceConfig) -> _torch.TorchModel:
    """The model, or the part that ``config`` names, with eager attention; without cache unless that
    is asked for.

    Outputs that come of weights missing in the files are left out.
    """
    import torch

    torch.manual_seed(0)
    module, missing = _load(config)
    path = Path(config.path)
    inputs = _Inputs(module, path)
    if config.part:
        _complete(path, missing)
        return _parts.load(
            module.eval(), config.part, inputs, cache=bool(config.options.get("cache", True))
        )
    if config.options.get("cache") and not module.config.is_encoder_decoder:
        _complete(path, missing)
        return _parts.causal_with_past(module.eval(), inputs)
    specs = config.inputs or inputs.specs()

    def sampler(
        count: int, seed: int, dims: Mapping[str, int], calibration: bool
    ) -> list[Mapping[str, np.ndarray]] | None:
        return list(inputs.samples(specs, count, seed, dims, calibration))

    headless = any("pooler" in key for key in missing)
    _complete(path, [key for key in missing if "pooler" not in key])
    module.eval()
    with torch.inference_mode():
        probe = {k: torch.from_numpy(v) for k, v in inputs.samples(specs, 1, 0, {})[0].items()}
        names = list(_torch.flatten(dict(module(**probe).items())))
    dropped = ("pooler_output",) if headless else ()
    keep = [
        n
        for n in names
        if n not in (*dropped, "past_key_values", "encoder_last_hidden_state", "loss")
        and "past_key" not in n
    ]
    made = _torch.TorchModel(module, specs, sampler=sampler, keep=keep)
    made.untrained = tuple(missing)
    return made


def weights(config: SourceConfig, part: str | None) -> _weights.TorchWeights:
    """The checkpoint's tensors under the model's names; of a part, those of its module."""
    # of graphs, not of weights
    options = {k: v for k, v in config.options.items() if k not in ("cache", "parts")}
    model = load(msgspec.structs.replace(config, options=options, part=""))
    return _weights.huggingface(model, Path(config.path), part, model.untrained)


def _complete(path: Path, missing: Sequence[str]) -> None:
    """Raises SourceError where the files lack weights."""
    if missing:
        raise SourceError(
            f"{path.name} lacks weights: "
            f"{', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}",
            hint="is `task` right for this checkpoint?",
        )


def export(config: SourceConfig, out: Path) -> ExportInfo:
    return _torch.export(load(config), out)


def prompts(config: SourceConfig) -> list[dict[str, np.ndarray]]:
    """What generation is checked with: a first feed, and under ``tokens`` what ``model.generate()``
    makes of it, greedily.

    Empty for models that generate nothing, or where not all parts that it takes are made.
    """
    import numpy as np
    import torch

    about = _config(Path(config.path)) or {}
    made = parts(config)
    both = writes_text(about) and {_greedy.ENCODER, _greedy.DECODER} <= set(made)
    if not both and (made or writes_text(about) or task(config, about) != "text-generation"):
        return []
    torch.manual_seed(0)
    module, _ = _load(config)
    module.eval()
    inputs = _Inputs(module, Path(config.path))
    feed = inputs.samples(
        inputs.specs(), 1, samples.SEED, {"batch": GENERATION_ROWS, "decoder_sequence": 1}
    )[0]
    # rows of one length: where padding stands is not what is checked
    if not both and "attention_mask" in feed:
        full = feed["attention_mask"].all(0)
        feed = {name: np.ascontiguousarray(array[:, full]) for name, array in feed.items()}
    longest = next(
        (
            n
            for k in ("max_target_positions", "max_position_embeddings")
            if (n := getattr(module.config, k, None))
        ),
        TOKENS + 64,
    )
    if not both:  # half of what the model can see at most
        feed = {
            name: np.ascontiguousarray(array[:, : max(1, longest // 2)])
            for name, array in feed.items()
        }
    used = 1 if both else feed["input_ids"].shape[1]
    count = min(TOKENS, longest - used)
    tokens = _generate(module, {n: torch.from_numpy(a) for n, a in feed.items()}, count)
    if config.options.get("cache") and not both:
        empty = _parts.causal_with_past(module, inputs)
        for spec in empty.inputs[2:]:
            heads, width = int(spec.shape[1]), int(spec.shape[3])
            feed[spec.name] = np.zeros((GENERATION_ROWS, heads, 0, width), spec.dtype)
        feed = {spec.name: feed[spec.name] for spec in empty.inputs}
    return [{**feed, "tokens": tokens}]


def _generate(module: Any, tensors: Mapping[str, Any], count: int) -> np.ndarray:
    """``count`` greedy tokens a row by transformers' own loop; no end of sentence, nothing forced
    or suppressed."""
    import numpy as np
    import torch
    import transformers

    start = getattr(module.config, "decoder_start_token_id", None)
    module.generation_config = transformers.GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=count,
        min_new_tokens=count,
        eos_token_id=None,
        pad_token_id=0,
        decoder_start_token_id=start,
        bos_token_id=None,
        use_cache=True,
    )
    # Whisper's own generate() is about time stamps and languages; the loop below it is what counts
    with torch.inference_mode():
        made = transformers.GenerationMixin.generate(module, **tensors).numpy()
    return np.asarray(made[:, -count:], np.int64)


def generate(
    config: SourceConfig,
    run: Mapping[str, _greedy.Call],
    prompt: Mapping[str, np.ndarray],
    count: int,
) -> np.ndarray:
    """Greedy tokens of the artifact's parts, int64 [batch, count]."""
    return _greedy.generate(run, prompt, count)

"""config.json of a Hugging Face folder: what the model is, what it is for, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path

from mconv.values import JsonObject

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
SPEECH = "AutoModelForSpeechSeq2Seq"  # instead of CTC where the model is an encoder-decoder
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
_ENCODER_DECODER_HEADS = ("ForConditionalGeneration", "MTModel", "ForSpeechSeq2Seq")
_GENERATING_HEADS = ("ForConditionalGeneration", "ForCausalLM", "LMHeadModel")


def read_config(folder: Path) -> JsonObject | None:
    """Return the content of config.json; None where it is not there or no JSON object."""
    try:
        content: object = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def list_architectures(config: JsonObject) -> list[str]:
    """Return the class names under ``architectures``."""
    listed = config.get("architectures")
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def writes_text(config: JsonObject) -> bool:
    """Return whether the model is an encoder-decoder with a head over a vocabulary."""
    return bool(config.get("is_encoder_decoder")) and any(
        name.endswith(_ENCODER_DECODER_HEADS) for name in list_architectures(config)
    )


def has_two_towers(config: JsonObject) -> bool:
    """Return whether the model embeds texts and images side by side, as CLIP does."""
    generates = any(name.endswith(_GENERATING_HEADS) for name in list_architectures(config))
    return "text_config" in config and "vision_config" in config and not generates


def find_task(config: JsonObject) -> str:
    """Return the task that the architecture's name ends with; plain encoders are for feature
    extraction."""
    if writes_text(config):
        hears = "num_mel_bins" in config or "speech" in str(config.get("model_type"))
        return "automatic-speech-recognition" if hears else "text2text-generation"
    for architecture in list_architectures(config):
        for suffix, task in _SUFFIXES.items():
            if architecture.endswith(suffix):
                return task
    return "feature-extraction"

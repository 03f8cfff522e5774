"""A small real file or folder of every format, each written by the library that it is of."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.models import write_linear


def _torch_state(path: Path, **settings: Any) -> Path:
    import torch

    torch.manual_seed(0)
    torch.save(torch.nn.Linear(8, 4).state_dict(), path, **settings)
    return path


def _torchscript(path: Path) -> Path:
    import torch

    torch.jit.trace(torch.nn.Linear(8, 4), torch.zeros(1, 8)).save(str(path))
    return path


def _program(path: Path) -> Path:
    import torch

    torch.export.save(torch.export.export(torch.nn.Linear(8, 4), (torch.zeros(1, 8),)), str(path))
    return path


def _safetensors(path: Path) -> Path:
    from safetensors.numpy import save_file

    save_file({"a.weight": np.ones((4, 8), np.float32), "b": np.zeros(3, np.float16)}, path)
    return path


def keras_model() -> Any:
    import keras

    return keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(4, activation="relu", name="first")]
    )


def _keras(path: Path) -> Path:
    keras_model().save(path)
    return path


def _saved_model(path: Path) -> Path:
    keras_model().export(str(path), verbose=False)
    return path


def _tflite(path: Path) -> Path:
    import tensorflow as tf

    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(keras_model()).convert())
    return path


def _openvino(path: Path) -> Path:
    import openvino

    model = openvino.convert_model(str(write_linear(path.with_suffix(".onnx"))))
    openvino.save_model(model, str(path), compress_to_fp16=False)
    path.with_suffix(".onnx").unlink()
    return path


def _parquet(path: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    about = {
        "mconv.config": {"model_type": "bert"},
        "mconv.tensors": [{"name": "a", "shape": [2, 3]}, {"name": "b", "shape": [4]}],
    }
    table = pyarrow.table({"name": ["a", "b"], "data": [bytes(range(24)), bytes(range(16))]})
    table = table.replace_schema_metadata({k: json.dumps(v) for k, v in about.items()})
    pyarrow.parquet.write_table(table, path, compression="zstd", write_page_checksum=True)
    return path


def _huggingface(path: Path) -> Path:
    import transformers

    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    transformers.BertModel(config).save_pretrained(path)
    return path


def _gguf(path: Path) -> Path:
    key, value = b"general.architecture", b"llama"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", len(key)) + key
    path.write_bytes(head + struct.pack("<IQ", 8, len(value)) + value)
    return path


def _sklearn(path: Path) -> Path:
    from sklearn.linear_model import LogisticRegression

    x = np.arange(20.0).reshape(10, 2)
    path.write_bytes(pickle.dumps(LogisticRegression().fit(x, x[:, 0] > 8)))
    return path


def _onnx_external(path: Path) -> Path:
    import onnx

    from tests.models import linear

    onnx.save_model(
        linear(), str(path), save_as_external_data=True, location="weights.data", size_threshold=0
    )
    return path


# file name → (format, what writes it); each passes its own check, where there is one
MADE: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "net.onnx": ("onnx", write_linear),
    "external.onnx": ("onnx", _onnx_external),
    "weights.safetensors": ("safetensors", _safetensors),
    "state.pt": ("torch", _torch_state),
    "old.pth": ("torch", lambda path: _torch_state(path, _use_new_zipfile_serialization=False)),
    "script.pt": ("torch", _torchscript),
    "program.pt2": ("torch", _program),
    "net.keras": ("keras", _keras),
    "net.h5": ("hdf5", _keras),
    "saved": ("saved_model", _saved_model),
    "net.tflite": ("tflite", _tflite),
    "ir.xml": ("openvino", _openvino),
    "table.parquet": ("parquet", _parquet),
    "folder": ("huggingface", _huggingface),
    "llm.gguf": ("gguf", _gguf),
    "model.pkl": ("pickle", _sklearn),
}


class Evil:
    """A pickle of it would write a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def evil_archive(path: Path, mark: Path) -> Path:
    """A PyTorch file whose pickle calls ``open``."""
    import zipfile

    buffer = io.BytesIO()
    pickle.dump({"a": Evil(mark)}, buffer, protocol=2)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", buffer.getvalue())
        archive.writestr("model/version", "3\n")
    return path

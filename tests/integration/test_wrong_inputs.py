"""Files that are not what they should be: each a clear error that says what to do; no code ran,
nothing lies outside OUT."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mconv.__main__ import main
from tests.models import linear, write_linear

CANARY = "canary"
FACTORY = "import torch\n\n\ndef build():\n    return torch.nn.Linear(8, 4)\n"
INPUT = ["--input", "x:float32:batch,8"]
LINEAR = ["--factory", "net:build", *INPUT]


class Touch:
    """Unpickled, it would write a file."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (CANARY,))


def png(folder: Path) -> str:
    (folder / "picture.onnx").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    return "picture.onnx"


def empty(folder: Path) -> str:
    (folder / "empty.onnx").touch()
    return "empty.onnx"


def cut_onnx(folder: Path) -> str:
    (folder / "cut.onnx").write_bytes(linear().SerializeToString()[:700])
    return "cut.onnx"


def cycle(folder: Path) -> str:
    model = linear()
    model.graph.node[0].input[0] = "y"
    (folder / "cycle.onnx").write_bytes(model.SerializeToString())
    return "cycle.onnx"


def external(location: str) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        (folder.parent / "secret").write_bytes(bytes(8 * 32 * 4))
        model = linear()
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        (folder / "external.onnx").write_bytes(model.SerializeToString())
        return "external.onnx"

    return make


def foreign(folder: Path) -> str:
    node = helper.make_node("Teleport", ["x"], ["y"], domain="com.acme")
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 8]) for n in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "foreign.onnx")
    return "foreign.onnx"


def safetensors(folder: Path) -> str:
    from safetensors.numpy import save

    data = save({"weight": np.ones((4, 8), np.float32), "bias": np.ones(4, np.float32)})
    (folder / "cut.safetensors").write_bytes(data[:-20])
    return "cut.safetensors"


def pointer(folder: Path) -> str:
    said = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
    (folder / "weights.safetensors").write_text(said)
    return "weights.safetensors"


def pickled(folder: Path) -> str:
    (folder / "weights.pt").write_bytes(pickle.dumps(Touch(), protocol=2))
    return "weights.pt"


def zipped_pickle(folder: Path) -> str:
    import torch

    torch.save({"weight": Touch()}, folder / "weights.pth")
    return "weights.pth"


def wrong_weights(folder: Path) -> str:
    import torch

    torch.save({"weight": torch.ones(3, 3), "bias": torch.ones(3)}, folder / "other.pt")
    return "other.pt"


def script(folder: Path) -> str:
    import torch

    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(8, 4), torch.ones(1, 8)), stream)
    data = bytearray(stream.getvalue())
    data[200:400] = bytes(200)
    (folder / "script.pt").write_bytes(data)
    return "script.pt"


def raising(folder: Path) -> str:
    import torch

    (folder / "bad.py").write_text("def build():\n    raise KeyError('no such layer')\n")
    torch.save(torch.nn.Linear(8, 4).state_dict(), folder / "good.pt")
    return "good.pt"


def config(**more: object) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        (folder / "hub").mkdir()
        (folder / "hub/config.json").write_text(
            json.dumps({"model_type": "bert", "architectures": ["BertModel"], **more})
        )
        (folder / "hub/model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
        return "hub"

    return make


def no_weights(folder: Path) -> str:
    config()(folder)
    (folder / "hub/model.safetensors").unlink()
    return "hub"


def keras_lambda(folder: Path) -> str:
    layer = {
        "class_name": "Lambda",
        "config": {
            "name": "evil",
            "function": {"class_name": "__lambda__", "config": {"code": "4w=="}},
        },
    }
    with zipfile.ZipFile(folder / "evil.keras", "w") as archive:
        archive.writestr(
            "config.json", json.dumps({"class_name": "Functional", "config": {"layers": [layer]}})
        )
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n")
    return "evil.keras"


def saved_model(folder: Path) -> str:
    import tensorflow as tf

    module = tf.Module()
    module.weight = tf.Variable([1.0])
    tf.saved_model.save(module, str(folder / "saved"))
    return "saved"


def hdf5(folder: Path) -> str:
    import h5py

    with h5py.File(folder / "data.h5", "w") as file:
        file["numbers"] = np.arange(4)
    return "data.h5"


def tflite(folder: Path) -> str:
    """The right signature, and offsets that point anywhere: TensorFlow's interpreter aborts on it,
    or refuses."""
    data = bytearray(np.random.default_rng(0).integers(0, 256, 400, np.uint8).tobytes())
    data[:8] = b"\x1c\0\0\0TFL3"
    (folder / "broken.tflite").write_bytes(data)
    return "broken.tflite"


def estimator(folder: Path) -> str:
    (folder / "model.joblib").write_bytes(pickle.dumps(Touch()))
    return "model.joblib"


def arrays(folder: Path) -> str:
    np.savez(folder / "arrays.npz", a=np.ones(3))
    return "arrays.npz"


WRONG: dict[str, tuple[Callable[[Path], str], list[str], str]] = {
    "a picture": (png, [], "PNG"),
    "an empty file": (empty, [], "empty"),
    "a cut graph": (cut_onnx, [], "cut.onnx"),
    "a graph in a circle": (cycle, [], "topological|sorted|cycle"),
    "external data that lead out": (external("../secret"), [], "outside|secret"),
    "external data elsewhere": (external("/etc/passwd"), [], "outside|absolute|/etc/passwd"),
    "external data that are not there": (external("nowhere.bin"), [], "nowhere.bin"),
    "a foreign operator": (foreign, [], "com.acme.Teleport"),
    "cut weights": (safetensors, LINEAR, "safetensors"),
    "a pointer of Git LFS": (pointer, LINEAR, "LFS"),
    "a pickle with code": (pickled, LINEAR, "code|pickle"),
    "a pickle with code, zipped": (zipped_pickle, LINEAR, "code|pickle"),
    "weights of another module": (wrong_weights, LINEAR, "size mismatch|shape|fit"),
    "weights without a factory": (wrong_weights, INPUT, "factory"),
    "a script with a hole": (script, INPUT, "script.pt|damaged"),
    "a factory that raises": (raising, ["--factory", "bad:build", *INPUT], "no such layer"),
    "a folder without weights": (no_weights, [], "weights"),
    "a folder with damaged weights": (config(), [], "hub"),
    "a folder that brings code": (config(auto_map={"AutoModel": "evil.Model"}), [], "auto_map"),
    "a Lambda layer": (keras_lambda, [], "Lambda"),
    "a SavedModel without signatures": (saved_model, [], "signature"),
    "HDF5 without a model": (hdf5, [], "data.h5|Keras"),
    "a TensorFlow Lite file of noise": (tflite, [], "tflite|TFL3|TensorFlow Lite"),
    "a pickled estimator": (estimator, [], "trust"),
    "arrays": (arrays, [], "arrays.npz|factory"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_a_clear_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make, more, words = WRONG[name]
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "net.py").write_text(FACTORY)
    write_linear(folder / "good.onnx")
    source = make(folder)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    monkeypatch.chdir(folder)
    code = main(
        [
            "convert",
            source,
            *more,
            "--to",
            "onnx",
            "--no-measure",
            "-o",
            "out",
            "--store",
            "out/store",
        ]
    )
    said = capfd.readouterr().err
    if (folder / "out/results.json").is_file():
        (variant,) = json.loads((folder / "out/results.json").read_text())["variants"]
        error = variant["error"] or {"message": " ".join(variant["reasons"]), "hint": None}
        said = f"{error['message']} {error.get('hint')}\n{said}"
    assert code in (1, 2), said
    assert re.search(words, said), said
    assert "Traceback" not in said
    made = {
        p for p in tmp_path.rglob("*") if p not in before and not p.is_relative_to(folder / "out")
    }
    assert not {p for p in made if "__pycache__" not in p.parts}, made
    assert not list(tmp_path.rglob(CANARY))
    assert {p: p.stat().st_mtime_ns for p in before if p.is_file()} == {
        p: t for p, t in before.items() if p.is_file()
    }

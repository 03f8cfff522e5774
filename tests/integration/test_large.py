"""Models that are too large for a copy in memory, in small: with the limits lowered, the peak of
each part is measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

LAYERS, WIDTH = 8, 2048
SIZE = LAYERS * WIDTH * WIDTH * 4  # 134 MB
CODE = """
import gc, json, sys
from pathlib import Path
import onnxruntime.transformers.float16, onnxscript.optimizer, onnxslim
from mconv import registry
from mconv.onnx_graph import model_files
from mconv.steps import measure
from mconv.quantizers._nbits import loading
from mconv.values import SourceConfig

model_files.INLINE_LIMIT = model_files.KEPT_OUTSIDE = loading.LARGE = 20_000_000
folder = Path(sys.argv[1])
source = folder / "source/model.onnx"
used = {}

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def step(name, call):
    out = folder / name
    out.mkdir()
    gc.collect()
    before = resident()
    measure._reset_peak()
    call(out / "model.onnx")
    used[name] = measure._read_peak() - before

optimizers, quantizers, targets = registry.optimizers(), registry.quantizers(), registry.targets()
quantize = lambda which, precision: lambda out: quantizers[which].quantize(
    source, out, precision=precision, options={}, calibration=None)
step("onnxscript", lambda out: optimizers["onnxscript"].optimize(source, out, level="basic"))
step("onnxslim", lambda out: optimizers["onnxslim"].optimize(source, out, level="basic"))
step("fp16", quantize("fp16", "fp16"))
step("int4", quantize("nbits", "int4"))
step("write", lambda out: targets["onnx"].write(
    folder / "fp16/model.onnx", out.parent, precision="fp16", options={}, name="m", calibration=None))
config = SourceConfig(format="onnx", path=str(source), root=str(folder))
step("export", lambda out: registry.sources()["onnx"].export(config, out.parent))
print(json.dumps(used))
"""
TORCH = f"""
import gc, json, sys
from pathlib import Path
import onnxruntime, torch, torch._dynamo, torch.onnx
from mconv.onnx_graph import model_files
from mconv.steps import measure
from mconv.sources import _mapped, _torch
from mconv.values import TensorSpec

model_files.INLINE_LIMIT = model_files.KEPT_OUTSIDE = 20_000_000
_mapped.LARGE = _torch.LARGE = int(sys.argv[2])
torch.manual_seed(0)
module = torch.nn.Sequential(*(torch.nn.Linear({WIDTH}, {WIDTH}, bias=False) for _ in range({LAYERS}))).requires_grad_(False)
out = Path(sys.argv[1])
out.mkdir()
inputs = (TensorSpec(name="x", dtype="float32", shape=("batch", {WIDTH})),)
small = torch.nn.Linear(4, 4)
(out / "small").mkdir()
_torch._dynamo(_torch.TorchModel(small, (TensorSpec(name="x", dtype="float32", shape=("batch", 4)),), by_name=False),
               out / "small/model.onnx", {{"batch"}})  # what it imports and keeps counts for no model
(out / "large").mkdir()
gc.collect()
before = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
measure._reset_peak()
info = _torch.export(_torch.TorchModel(module, inputs, by_name=False), out / "large")
print(json.dumps([info.exporter, measure._read_peak() - before]))
"""
# Of the model's size, beside what the imports take: a tensor or two, where onnxruntime tries the
# model the model itself once, and for int4 some seven times a tensor, which is an eighth of this
# model.
MOST = {"onnxscript": 0.5, "onnxslim": 0.5, "fp16": 0.6, "int4": 1.45, "write": 0.5, "export": 1.45}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Products in a row; weights in external data."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "source").mkdir()
    rng = np.random.default_rng(0)
    tensors, nodes, last = [], [], "x"
    with (folder / "source/weights.bin").open("wb") as data:
        for index in range(LAYERS):
            tensor = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (
                ("location", "weights.bin"),
                ("offset", data.tell()),
                ("length", WIDTH * WIDTH * 4),
            ):
                tensor.external_data.add(key=key, value=str(value))
            (rng.standard_normal((WIDTH, WIDTH), np.float32) * WIDTH**-0.5).tofile(data)
            tensors.append(tensor)
            nodes.append(
                helper.make_node(
                    "MatMul", [last, f"w{index}"], [last := f"y{index}"], name=f"n{index}"
                )
            )
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])]
    outputs = [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["batch", WIDTH])]
    graph = helper.make_graph(nodes, "large", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "source/model.onnx")
    return folder


def test_peak_memory_stays_below_the_model_s_size(folder: Path) -> None:
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(folder)],
        capture_output=True,
        text=True,
        env=env,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    used = {name: peak / SIZE for name, peak in json.loads(done.stdout.splitlines()[-1]).items()}
    print(used)
    assert used.keys() == MOST.keys()
    assert not {name: ratio for name, ratio in used.items() if ratio > MOST[name]}, used
    import onnxruntime

    feed = {"x": np.random.default_rng(1).standard_normal((2, WIDTH), np.float32)}
    answers = {}
    for name in ("source", *MOST):
        path = folder / name / "model.onnx"
        assert path.stat().st_size < 100_000  # all weights are outside
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        answers[name] = session.run(None, feed)[0].ravel()
    for name in MOST:
        cosine = (
            answers[name]
            @ answers["source"]
            / np.linalg.norm(answers[name])
            / np.linalg.norm(answers["source"])
        )
        assert cosine > (0.9 if name == "int4" else 0.99999), (name, cosine)
    wide = np.fromfile(folder / "source/weights.bin", np.float32, WIDTH * WIDTH)
    half = onnx.load(folder / "fp16/model.onnx").graph.initializer
    got = np.frombuffer(half[0].raw_data, np.float16)
    # what is not zero stays so
    assert np.abs(got - wide.astype(np.float16)).max() <= np.finfo(np.float16).smallest_subnormal


@pytest.mark.parametrize("limit", [20_000_000, pytest.param(10**12, marks=pytest.mark.full)])
def test_a_large_module_is_exported_out_of_files(limit: int, tmp_path: Path) -> None:
    """Its weights are in memory once, before and while it is exported; those of a small one are
    copied."""
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    command = [sys.executable, "-c", TORCH, str(tmp_path / "out"), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=500)
    assert done.returncode == 0, done.stderr
    exporter, more = json.loads(done.stdout.splitlines()[-1])
    print(exporter, more / SIZE)
    files = {file.name: file.stat().st_size for file in (tmp_path / "out/large").iterdir()}
    assert files["model.onnx"] < 100_000
    assert files["model.onnx.data"] >= SIZE
    if limit < SIZE:
        assert exporter.startswith("torch.onnx dynamo")
        assert more < 0.75 * SIZE
    else:
        assert exporter.startswith("torch.onnx TorchScript")
        assert more > 1.5 * SIZE  # so that the test would tell

"""A model of 3 GB to onnx fp16 and int4: peak memory of every step against the model's size.

    python benchmarks/large.py [--gb 3] [--source onnx|huggingface] [--folder DIR] [--keep]

It builds a transformer of random weights (a decoder's layers, an embedding and a head) as ONNX with
external data, or as a Hugging Face folder, runs ``mconv run`` on it as a user would, and fails
where a step's peak resident memory, mapped files included, reached 1.5 times the size of the
model's files. It needs about six times that size of disk."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LIMIT = 1.5
WIDTH, HEADS, VOCABULARY = 2048, 16, 32000
MANIFEST = """\
version: 1
models:
  - name: large
    source: ./{file}
    tolerance: {{cosine: 0.9}}
    targets: [{targets}]
    resources: {{timeout: 3600s}}
"""


def layers_for(gigabytes: float, width: int = WIDTH) -> int:
    """Layers of a model of that size: 12·width² weights each, beside the embedding and the head."""
    return max(1, round((gigabytes * 1e9 / 4 - 2 * VOCABULARY * width) / (12 * width * width)))


def write_onnx(
    path: Path, layers: int, *, width: int = WIDTH, heads: int = HEADS, vocabulary: int = VOCABULARY
) -> None:
    """A decoder without cache or mask: ids [batch, sequence] → logits. Weights go to the file of
    external data one by one."""
    import onnx
    from onnx import TensorProto, helper

    data = path.with_name(path.name + ".data").open("wb")
    random = np.random.default_rng(0)
    tensors, nodes = [], []

    def weight(name: str, *shape: int, scale: float | None = None) -> str:
        values = random.standard_normal(shape, np.float32) * (scale or shape[0] ** -0.5)
        tensor = TensorProto(
            name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL
        )
        data.write(bytes(-data.tell() % 4096))
        for key, value in (
            ("location", f"{path.name}.data"),
            ("offset", data.tell()),
            ("length", values.nbytes),
        ):
            tensor.external_data.add(key=key, value=str(value))
        values.tofile(data)
        tensors.append(tensor)
        return name

    def constant(name: str, values: np.ndarray) -> str:
        tensors.append(onnx.numpy_helper.from_array(values, name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    split = constant("split", np.array([0, 0, heads, width // heads], np.int64))
    merge = constant("merge", np.array([0, 0, width], np.int64))
    ones, zeros = (
        constant("ones", np.ones(width, np.float32)),
        constant("zeros", np.zeros(width, np.float32)),
    )
    shrink = constant("shrink", np.array((width // heads) ** -0.5, np.float32))
    x = node("Gather", [weight("embedding", vocabulary, width, scale=1.0), "ids"], "embedded")
    for i in range(layers):
        p = f"layer{i}"
        h = node("LayerNormalization", [x, ones, zeros], f"{p}.norm1")
        parts = {}
        for part, turn in (("q", (0, 2, 1, 3)), ("k", (0, 2, 3, 1)), ("v", (0, 2, 1, 3))):
            made = node("MatMul", [h, weight(f"{p}.{part}.weight", width, width)], f"{p}.{part}")
            parts[part] = node(
                "Transpose",
                [node("Reshape", [made, split], f"{p}.{part}s")],
                f"{p}.{part}t",
                perm=turn,
            )
        scores = node(
            "Mul", [node("MatMul", [parts["q"], parts["k"]], f"{p}.dot"), shrink], f"{p}.scores"
        )
        mixed = node(
            "MatMul", [node("Softmax", [scores], f"{p}.softmax", axis=-1), parts["v"]], f"{p}.mixed"
        )
        mixed = node(
            "Reshape",
            [node("Transpose", [mixed], f"{p}.mixedt", perm=(0, 2, 1, 3)), merge],
            f"{p}.merged",
        )
        x = node(
            "Add",
            [x, node("MatMul", [mixed, weight(f"{p}.o.weight", width, width)], f"{p}.o")],
            f"{p}.sum1",
        )
        h = node("LayerNormalization", [x, ones, zeros], f"{p}.norm2")
        h = node(
            "Relu",
            [node("MatMul", [h, weight(f"{p}.up.weight", width, 4 * width)], f"{p}.up")],
            f"{p}.relu",
        )
        x = node(
            "Add",
            [x, node("MatMul", [h, weight(f"{p}.down.weight", 4 * width, width)], f"{p}.down")],
            f"{p}.sum2",
        )
    x = node("LayerNormalization", [x, ones, zeros], "norm")
    node("MatMul", [x, weight("head", width, vocabulary)], "logits")
    data.close()
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])
    logits = helper.make_tensor_value_info(
        "logits", TensorProto.FLOAT, ["batch", "sequence", vocabulary]
    )
    graph = helper.make_graph(nodes, "large", [ids], [logits], initializer=tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(model.SerializeToString(deterministic=True))


def write_huggingface(folder: Path, layers: int) -> None:
    """A Llama of random weights, saved as its users save it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH * 2 // 3,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        vocab_size=VOCABULARY,
        max_position_embeddings=512,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gb", type=float, default=3.0)
    parser.add_argument("--source", choices=("onnx", "huggingface"), default="onnx")
    parser.add_argument("--targets", default="onnx:fp16, onnx:int4")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave the folder, and use the model that is there already",
    )
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="mconv-large-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return prove(folder, args.gb, args.source, args.targets)
    finally:
        if not args.keep:
            shutil.rmtree(folder)


def prove(folder: Path, gigabytes: float, source: str, targets: str) -> int:
    model = folder / ("model.onnx" if source == "onnx" else "model")
    if not model.exists():
        write_onnx(model, layers_for(gigabytes)) if source == "onnx" else write_huggingface(
            model, layers_for(gigabytes)
        )
    (folder / "models.yml").write_text(MANIFEST.format(file=model.name, targets=targets))
    begin = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "mconv",
        "run",
        "models.yml",
        "--store",
        "store",
        "--out",
        "out",
        "--jobs",
        "1",
    ]
    code = subprocess.run(command, cwd=folder, check=False).returncode
    seconds = time.monotonic() - begin
    report = json.loads((folder / "out/results.json").read_text())
    size = report["models"][0]["size_bytes"]
    print(f"model: {size / 1e9:.2f} GB, {seconds:.0f} s, exit code {code}")
    worst = 0.0
    for variant in report["variants"]:
        print(
            f"{variant['id']}: {variant['status']}, {(variant.get('size_bytes') or 0) / 1e9:.2f} GB"
        )
        for step in variant["steps"]:
            ratio = (step.get("peak_rss_bytes") or 0) / size
            worst = max(worst, ratio)
            print(
                f"  {step['kind']:<10} {step['seconds']:8.1f} s  {ratio * size / 1e9:6.2f} GB  "
                f"{ratio:5.2f} × the model"
            )
    print(f"largest: {worst:.2f} × the model's size (limit {LIMIT})")
    return 0 if code == 0 and worst < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())

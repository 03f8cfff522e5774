"""Weights in Parquet, from every source, whole and in parts: the source's framework runs the file,
and so can anybody."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from mconv import compare, parquet, registry
from mconv.answers import VerifyAnswer
from mconv.errors import StepError
from mconv.steps import convert as steps_convert
from mconv.steps import reference as steps_reference
from mconv.steps import reload
from mconv.steps import verify as steps_verify
from mconv.steps.requests import (
    InSource,
    ReferenceRequest,
    VerifyRequest,
    WeightedPart,
    WeightsRequest,
    WriteRequest,
)
from mconv.values import SourceConfig, TensorSpec
from tests.models import write_linear

pytestmark = pytest.mark.filterwarnings("ignore")


def deliver(
    folder: Path, config: SourceConfig, *, precision: str = "fp32", **options: Any
) -> tuple[Path, VerifyAnswer]:
    """The steps of a variant, as workers do them: the artifact's folder, and what its verification
    found."""
    shutil.rmtree(folder, ignore_errors=True)
    paths = {name: folder / name for name in ("weights", "reference", "artifact", "verify")}
    for path in paths.values():
        path.mkdir(parents=True)
    part = options.get("part")
    reload.extract(WeightsRequest(source=config, part=part), {}, paths["weights"])
    request = ReferenceRequest(
        source=config,
        samples=(),
        labels=None,
        count=2,
        seed=1,
        weights=WeightedPart(part=part),
    )
    steps_reference.reference(request, {}, paths["reference"])
    write = WriteRequest(target="parquet", precision=precision, options=options, name="m")
    steps_convert.write(write, {"model": paths["weights"]}, paths["artifact"])
    return paths["artifact"], verify(folder, config, precision, options)


def verify(
    folder: Path, config: SourceConfig, precision: str, options: dict[str, Any]
) -> VerifyAnswer:
    artifact = InSource(
        source=config,
        part=options.get("part"),
        target="parquet",
        threads=1,
        precision=precision,
        options=options,
    )
    folders = {name: folder / name for name in ("reference", "artifact")}
    return steps_verify.verify(VerifyRequest(artifact=artifact), folders, folder)


def exact(answer: VerifyAnswer) -> bool:
    same = all(o.max_abs in (0.0, None) for o in answer.outputs)
    whole = answer.details["bit_exact"] == answer.details["tensors"] > 0
    return bool(answer.outputs) and same and whole


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> SourceConfig:
    import torch
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    small = {
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {**small, "vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2}
    about = CLIPConfig(
        vision_config={**small, "image_size": 32, "patch_size": 8},
        text_config=text,
        projection_dim=16,
    )
    CLIPModel(about).save_pretrained(folder)
    for name in ("preprocessor_config.json", "tokenizer_config.json"):
        (folder / name).write_text(
            '{"image_processor_type": "CLIPImageProcessor"}' if name.startswith("pre") else "{}"
        )
    (folder / "tokenizer_config.json").rename(folder / "merges.txt")
    return SourceConfig(format="huggingface", path=str(folder), root=str(folder))


def test_the_vision_part_of_clip_is_a_model_of_its_own(tmp_path: Path, clip: SourceConfig) -> None:
    import torch
    from transformers import CLIPModel, CLIPVisionConfig, CLIPVisionModel

    out, found = deliver(tmp_path / "v", clip, part="vision", map={"vision_model.": ""})
    assert exact(found)
    assert [o.name for o in found.outputs] == ["last_hidden_state", "pooler_output"]
    assert {p.name for p in out.iterdir()} == {
        "weights.parquet",
        "config.json",
        "preprocessor_config.json",
    }
    weights = parquet.load(out)
    assert not any("text" in name for name in weights)
    assert (weights.metadata["architecture"], weights.metadata["part"]) == (
        "CLIPVisionModel",
        "vision_model",
    )
    alone = CLIPVisionModel(CLIPVisionConfig(**weights.metadata["config"])).eval()
    alone.load_state_dict(weights.torch())
    image = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = CLIPModel.from_pretrained(clip.path).eval().vision_model(image).pooler_output
        torch.testing.assert_close(alone(image).pooler_output, expected)
    assert int(weights.metadata["parameters"]) == sum(p.numel() for p in alone.parameters())
    whole, found = deliver(tmp_path / "w", clip)
    assert exact(found)
    assert {p.name for p in whole.iterdir()} == {
        "weights.parquet",
        "config.json",
        "preprocessor_config.json",
        "merges.txt",
    }


def test_the_encoder_of_whisper_keeps_bfloat16_and_takes_float16(tmp_path: Path) -> None:
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    heads = {
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
    }
    small = {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "vocab_size": 99,
        "max_source_positions": 30,
    }
    model = WhisperForConditionalGeneration(WhisperConfig(**small, **heads, **tokens)).to(
        torch.bfloat16
    )
    model.save_pretrained(tmp_path / "whisper")
    config = SourceConfig(format="huggingface", path=str(tmp_path / "whisper"), root=str(tmp_path))
    out, found = deliver(tmp_path / "e", config, part="encoder")
    assert exact(found)
    weights = parquet.load(out, framework="torch")
    assert {i.dtype for i in weights.tensors.values()} == {"bfloat16"}
    encoder = model.model.encoder.state_dict()
    assert {n.removeprefix("model.encoder.") for n in weights} == set(encoder)
    assert all(torch.equal(weights[f"model.encoder.{n}"], v) for n, v in encoder.items())
    _, found = deliver(tmp_path / "h", config, part="audio", precision="fp16")
    assert found.details["dtypes"] == {"float16": len(encoder)}
    assert (
        compare.judge(
            found.outputs,
            compare.DEFAULT_TOLERANCES["fp16"],
        )[0]
        == "passed"
    )
    whole, found = deliver(tmp_path / "w", config)
    assert exact(found)
    assert (
        parquet.load(whole).tensors["proj_out.weight"].alias_of
        == "model.decoder.embed_tokens.weight"
    )
    # needs the encoder's answer: the whole model runs around it
    _, found = deliver(tmp_path / "d", config, part="decoder")
    assert exact(found)


def test_a_pytorch_factory(tmp_path: Path) -> None:
    import torch

    text = (
        "import torch\ndef build(): return torch.nn.Sequential(torch.nn.Linear(4, 8), "
        "torch.nn.ReLU(), torch.nn.Linear(8, 3))\n"
    )
    (tmp_path / "parquetnet.py").write_text(text)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    config = SourceConfig(
        format="pytorch",
        path=str(tmp_path / "net.pt"),
        root=str(tmp_path),
        options={"factory": "parquetnet:build"},
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 4)),),
    )
    out, found = deliver(tmp_path / "f", config)
    assert exact(found)
    again = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    again.load_state_dict(parquet.load(out).torch())
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), net.parameters(), strict=True))
    script = torch.jit.script(net)
    torch.jit.save(script, tmp_path / "script.pt")
    at = msgspec.structs.replace(config, path=str(tmp_path / "script.pt"), options={})
    assert exact(deliver(tmp_path / "s", at)[1])
    program = torch.export.export(net, (torch.ones(2, 4),))
    torch.export.save(program, tmp_path / "program.pt2")
    at = msgspec.structs.replace(config, path=str(tmp_path / "program.pt2"), options={}, inputs=())
    assert exact(deliver(tmp_path / "p", at)[1])


def test_keras_and_saved_models(tmp_path: Path) -> None:
    import keras

    net = keras.Sequential(
        [
            keras.Input((6,), name="x"),
            keras.layers.Dense(5, name="a"),
            keras.layers.Dense(2, name="b"),
        ]
    )
    net.save(tmp_path / "net.keras")
    net.export(tmp_path / "saved", verbose=False)
    for name in ("net.keras", "saved"):
        config = SourceConfig(format="tensorflow", path=str(tmp_path / name), root=str(tmp_path))
        out, found = deliver(tmp_path / f"out-{name}", config)
        assert exact(found)
        weights = parquet.load(out)
        assert sorted(a.shape for a in weights.values()) == sorted(
            tuple(w.shape) for w in net.weights
        )
    np.testing.assert_array_equal(
        parquet.load(tmp_path / "out-net.keras/artifact")["a/kernel"], net.layers[0].kernel.numpy()
    )


def test_another_models_weights_do_not_pass(tmp_path: Path) -> None:
    configs = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        path = write_linear(tmp_path / str(seed) / "m.onnx", seed)
        configs.append(SourceConfig(format="onnx", path=str(path), root=str(tmp_path)))
    for precision in ("fp32", "fp16"):
        deliver(tmp_path / "ours", configs[0], precision=precision)
        other, _ = deliver(tmp_path / "theirs", configs[1], precision=precision)
        shutil.copyfile(other / parquet.FILE, tmp_path / "ours/artifact" / parquet.FILE)
        if precision == "fp32":
            with pytest.raises(
                StepError, match="weights are not the source's, bit for bit: w0, b0, w1"
            ):
                verify(tmp_path / "ours", configs[0], precision, {})
        else:  # the answers are those of the file, not of the source that it was put into
            found = verify(tmp_path / "ours", configs[0], precision, {})
            assert found.outputs[0].cosine < 0.9


def test_on_the_command_line(tmp_path: Path) -> None:
    write_linear(tmp_path / "m.onnx")
    targets = "[{parquet: {dtype: float16, level: 9, map: {w: layer.w}}}, onnx]"
    (tmp_path / "models.yml").write_text(
        f"version: 1\nmodels:\n  - name: m\n    source: m.onnx\n    targets: {targets}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mconv", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    whole = json.loads((tmp_path / "out/results.json").read_text())
    # of the variant that has a graph, though it is not the first
    assert whole["models"][0]["exporter"] == "none (already ONNX)"
    found = next(v for v in whole["variants"] if v["id"] == "m/parquet/fp16")
    assert found["status"] == "passed"
    assert [s["kind"] for s in found["steps"]] == [
        "weights",
        "reference",
        "write",
        "verify",
        "measure",
    ]
    assert found["verification"]["runtime"] == "onnx"
    assert found["verification"]["placement"]["witnesses"] == [
        "own weights erased, 3 tensors taken from the file"
    ]
    assert found["benchmark"]["load_ms"] > 0
    assert list(parquet.load(tmp_path / "out/m/parquet-fp16")) == ["layer.w0", "b0", "layer.w1"]
    argv = [sys.executable, "-m", "mconv", "verify", "out/m/parquet-fp16"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "passed" in done.stderr


def test_every_source_gives_weights_or_is_refused() -> None:
    for source in registry.sources().values():
        if source.weights is None:
            config = SourceConfig(format=source.name, path="x", root=".")
            with pytest.raises(StepError, match="do not give their weights"):
                reload.extract(WeightsRequest(source=config), {}, Path())

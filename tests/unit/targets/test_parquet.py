"""What the parquet target decides: names, types, encodings; and what it refuses, at its place in
the manifest."""

from __future__ import annotations

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from mconv import parquet, registry
from mconv.errors import ManifestError, UnsupportedError
from mconv.manifest import config as manifest_config
from mconv.manifest import reader
from mconv.targets._parquet import encodings, renaming
from mconv.targets._parquet.writer import group_rows, narrow_tensor
from mconv.weights import Tensor
from tests.models import write_linear
from tests.unit.test_parquet import put

NAMES = ["model.encoder.layer.0.weight", "model.encoder.layer.10.weight", "model.head.bias"]


@pytest.mark.parametrize(
    ("rules", "renamed"),
    [
        ({}, NAMES),
        ({"model.": ""}, ["encoder.layer.0.weight", "encoder.layer.10.weight", "head.bias"]),
        # the longest prefix
        (
            {"model.": "m.", "model.encoder.": ""},
            ["layer.0.weight", "layer.10.weight", "m.head.bias"],
        ),
        (
            {r"^model\.encoder\.layer\.(\d+)\.": r"h.\1."},
            ["h.0.weight", "h.10.weight", "model.head.bias"],
        ),
        ({"^": "x."}, [f"x.{n}" for n in NAMES]),
        (
            {r"^.*\.bias$": "b", "model.encoder": "e"},
            ["e.layer.0.weight", "e.layer.10.weight", "b"],
        ),
    ],
)
def test_rename(rules: dict[str, str], renamed: list[str]) -> None:
    renaming.check_rules(rules)
    assert list(renaming.rename_tensors(NAMES, rules).values()) == renamed
    # whatever the order
    assert list(renaming.rename_tensors(NAMES, dict(reversed(rules.items()))).values()) == renamed


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"modle.": ""}, "no tensor's name fits the rule 'modle.'"),
        ({r"^model\.encoder\.layer\.\d+": "h"}, "which is .* already"),
        ({r"^model\..*": ""}, "no name"),
        ({r"^model\.": "a", r"^.*weight": "b"}, "both fit"),
    ],
)
def test_rename_refuses_what_would_lose_a_tensor(rules: dict[str, str], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        renaming.rename_tensors(NAMES, rules)


@pytest.mark.parametrize("rules", [{"^(": "x"}, {"^a": r"\2"}, {"": "x"}])
def test_rules_are_checked_before_anything_runs(rules: dict[str, str]) -> None:
    with pytest.raises(UnsupportedError):
        renaming.check_rules(rules)


def test_half_is_numpys_and_leaves_what_it_cannot_hold() -> None:
    wide = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    assert narrow_tensor(Tensor.of(wide)).data.tobytes() == wide.astype(np.float16).tobytes()
    brain = wide.astype(ml_dtypes.bfloat16)
    assert (
        narrow_tensor(Tensor.of(brain)).data.tobytes()
        == brain.astype(np.float32).astype(np.float16).tobytes()
    )
    assert narrow_tensor(Tensor.of(np.array([1, np.inf, np.nan]))).dtype == "float16"
    for array in (
        np.array([1e5], np.float32),
        np.array([3], np.int64),
        np.array([1 + 2j], np.complex64),
    ):
        assert narrow_tensor(Tensor.of(array)) is not None
        assert narrow_tensor(Tensor.of(array)).dtype == array.dtype.name


def test_a_tensor_that_stays_wide_is_told_of(tmp_path: Path) -> None:
    held = {"w": np.ones(3, np.float32), "big": np.array([70000], np.float32)}
    weights = parquet.load(put(tmp_path, held, precision="fp16", dtype="float16"))
    assert {n: i.dtype for n, i in weights.tensors.items()} == {"w": "float16", "big": "float32"}
    assert weights.metadata["notes"] == ["big stays float32: float16 cannot hold its largest value"]


def test_row_groups_hold_about_a_chunk() -> None:
    tensors = {
        n: Tensor.of(np.zeros(size, np.float32))
        for n, size in (("a", 100), ("b", 1000), ("c", 10), ("d", 10))
    }
    groups = [
        [(r.name, r.offset, r.elements) for r in g] for g in group_rows(tensors, {"e": "a"}, 1600)
    ]
    assert groups == [
        [("a", 0, 100)],
        [("b", 0, 400)],
        [("b", 400, 400)],
        [("b", 800, 200), ("c", 0, 10), ("d", 0, 10), ("e", 0, 0)],
    ]


def test_encodings_are_those_that_measure_smallest() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(100_000).astype(np.float32)
    few = rng.choice(rng.standard_normal(5).astype(np.float32), 100_000)
    whole = rng.integers(-127, 128, 100_000).astype(np.int8)
    chosen = [
        encodings.choose_encodings({"w": Tensor.of(a)}, "zstd", 1) for a in (noise, few, whole)
    ]
    assert [next(iter(c.values())) for c in chosen] == [
        "byte_stream_split",
        "dictionary",
        "dictionary",
    ]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_smaller_than_safetensors_by_more_than_five_percent(tmp_path: Path, precision: str) -> None:
    rng = np.random.default_rng(0)
    held = {f"w{i}": (rng.standard_normal((256, 512)) * 0.02).astype(np.float32) for i in range(8)}
    kind = np.float16 if precision == "fp16" else np.float32
    save_file({n: a.astype(kind) for n, a in held.items()}, tmp_path / "model.safetensors")
    ours = put(tmp_path, held, precision=precision).stat().st_size
    assert ours < 0.95 * (tmp_path / "model.safetensors").stat().st_size
    assert (
        put(tmp_path, {"q": rng.integers(-127, 128, 10**6).astype(np.int8)}).stat().st_size < 1.01e6
    )


def read(folder: Path, *targets: str) -> manifest_config.Manifest:
    write_linear(folder / "m.onnx")
    lines = "".join(f"      - {t}\n" for t in targets)
    (folder / "models.yml").write_text(
        f"version: 1\nmodels:\n  - name: m\n    source: m.onnx\n    targets:\n{lines}"
    )
    return reader.load(folder / "models.yml")


def test_dtype_and_precision_say_the_same(tmp_path: Path) -> None:
    manifest = read(
        tmp_path,
        "parquet",
        "parquet: {dtype: float16, level: 9}",
        "parquet: {as: both, dtype: float16, precision: fp16}",
    )
    assert [(v.label, v.precision) for v in manifest.models[0].variants] == [
        ("parquet", "fp32"),
        ("parquet", "fp16"),
        ("both", "fp16"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "parquet: {precision: fp32, dtype: float16}",
            "models.yml:6:30: .*dtype float16 is precision fp16, not fp32",
        ),
        (
            "parquet: {precision: [fp32, fp16], dtype: original}",
            "models.yml:6:37: .*dtype original is precision fp32, not fp16",
        ),
        (
            "parquet: {compression: lz4, level: 3}",
            "models.yml:6:9: .*compression lz4 has no levels",
        ),
        ("parquet: {level: 23}", "models.yml:6:26: level must be at most 22"),
        (
            "parquet: {compression: gzip}",
            "models.yml:6:32: compression must be one of zstd, lz4, snappy, none",
        ),
        ('parquet: {map: {"^(": x}}', "models.yml:6:9: .*is no pattern"),
        ("parquet: {dtype: float15}", "models.yml:6:26: dtype must be one of"),
        ("parquet:int8", "models.yml:6:9: 'int8' is not a precision of target parquet"),
    ],
)
def test_contradictions_are_named_at_their_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read(tmp_path, text)
    assert re.search(message, str(caught.value))


def test_a_source_without_weights_is_refused_in_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    plain = {n: dataclasses.replace(s, weights=None) for n, s in registry.sources().items()}
    monkeypatch.setattr(registry, "sources", lambda: plain)
    with pytest.raises(
        ManifestError,
        match=r"models\.yml:6:9: target parquet takes weights by name, which onnx sources do not give",
    ):
        read(tmp_path, "parquet")

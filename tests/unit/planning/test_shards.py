"""One run on several machines: the split, the parts, the merge."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from mconv.__main__ import main
from mconv.api import _results as reports
from mconv.errors import UsageError
from mconv.manifest import reader
from mconv.planning import planner, shards, step_graph
from mconv.values import Shard
from tests.models import write_linear
from tests.unit.reports.factory import report


def plan(folder: Path, targets: list[str]) -> step_graph.Plan:
    """A model a string of targets; the first is by far the largest."""
    lines = ["version: 1", "models:"]
    for index, listed in enumerate(targets):
        write_linear(folder / f"m{index}.onnx", seed=index)
        lines.append(f"  - {{name: m{index}, source: m{index}.onnx, targets: [{listed}]}}")
    (folder / "models.yml").write_text("\n".join(lines))
    return planner.make_plan(reader.load(folder / "models.yml"))


def ids(split: tuple[tuple[step_graph.VariantPlan, ...], ...]) -> list[list[str]]:
    return [[v.id for v in shard] for shard in split]


def test_every_variant_is_in_one_shard_and_models_stay_together(tmp_path: Path) -> None:
    made = plan(tmp_path, ["onnx, openvino"] * 4)
    split = ids(shards.split_variants(made, 2))
    assert sorted(name for shard in split for name in shard) == sorted(v.id for v in made.variants)
    for shard in split:
        assert len(shard) == 4
        assert len({name.split("/")[0] for name in shard}) == 2
    assert split == ids(shards.split_variants(plan(tmp_path, ["onnx, openvino"] * 4), 2))


def test_one_model_that_outweighs_the_rest_is_divided(tmp_path: Path) -> None:
    made = plan(
        tmp_path,
        ['onnx, "onnx:fp16", "onnx:int8", openvino, "openvino:fp16", "openvino:int8"', "onnx"],
    )
    whole = shards.estimate_cost(made, made.variants)
    split = shards.split_variants(made, 2)
    costs = [shards.estimate_cost(made, shard) for shard in split]
    assert max(costs) < 0.75 * whole
    assert max(costs) / min(costs) < 1.3


def test_shared_steps_count_once(tmp_path: Path) -> None:
    made = plan(tmp_path, ["onnx, openvino"])
    alone = [shards.estimate_cost(made, [v]) for v in made.variants]
    assert shards.estimate_cost(made, made.variants) < sum(alone)
    assert shards.estimate_cost(made, made.variants[:1]) == alone[0]


def test_more_shards_than_variants_leave_some_empty(tmp_path: Path) -> None:
    made = plan(tmp_path, ["onnx"])
    assert sorted(map(len, shards.split_variants(made, 4))) == [0, 0, 0, 1]
    assert len(shards.make_matrix(made, 4)["include"]) == 1  # type: ignore[arg-type]


def test_a_matrix_for_github(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan(tmp_path, ["onnx", "openvino"])
    assert main(["plan", str(tmp_path / "models.yml"), "--shards", "2", "--format", "github"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1  # one line, as GITHUB_OUTPUT wants it
    assert [entry["shard"] for entry in json.loads(out)["include"]] == ["1/2", "2/2"]
    assert (
        main(["plan", str(tmp_path / "models.yml"), "--shards", "257", "--format", "github"]) == 2
    )
    assert main(["plan", str(tmp_path / "models.yml"), "--shards", "2"]) == 0
    assert "2/2: 1 variants" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/257", "-1/2"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not I/N"):
        shards.parse_shard(text)


def test_merged_parts_say_which_are_missing() -> None:
    def part(index: int, count: int = 3) -> object:
        found = report(passed=0, variants=())
        return msgspec.structs.replace(found, shard=Shard(index=index, count=count))

    whole = reports.merge_results([part(1), part(3), part(2)])  # type: ignore[list-item]
    assert (whole.missing_shards, whole.shard, whole.summary.conclusion) == ((), None, "success")
    lacking = reports.merge_results([part(3)])  # type: ignore[list-item]
    assert lacking.missing_shards == (1, 2)
    assert lacking.summary.conclusion == "failure"
    assert "missing: the results of shard 1, 2" in reports.render_results(lacking, "markdown")
    with pytest.raises(UsageError, match="not the parts of one run"):
        reports.merge_results([part(1), part(1, 2)])  # type: ignore[list-item]


def test_two_shards_make_what_one_run_makes(tmp_path: Path) -> None:
    plan(tmp_path, ['onnx, "onnx:int8"', "onnx, openvino"])
    argv = ["run", str(tmp_path / "models.yml"), "--no-measure"]
    assert main([*argv, "--out", str(tmp_path / "whole"), "--store", str(tmp_path / "s0")]) == 0
    for index in (1, 2):
        where = ["--out", str(tmp_path / f"part{index}"), "--store", str(tmp_path / f"s{index}")]
        assert main([*argv, *where, "--shard", f"{index}/2"]) == 0
    parts = [str(tmp_path / f"part{index}/results.json") for index in (1, 2)]
    assert main(["report", *parts, "--format", "json", "-o", str(tmp_path / "merged.json")]) == 0
    whole = json.loads((tmp_path / "whole/results.json").read_text())
    merged = json.loads((tmp_path / "merged.json").read_text())
    assert merged["summary"] == whole["summary"]
    digests = [
        {v["id"]: [f["sha256"] for f in v["files"]] for v in told["variants"]}
        for told in (whole, merged)
    ]
    assert digests[0] == digests[1]

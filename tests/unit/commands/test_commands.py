"""The thin commands: what each makes of its arguments, what it prints, and its exit code. What the
API does with that is tested there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from mconv import api
from mconv.__main__ import import_commands, main, make_parser
from mconv.api import Environment, Planned
from mconv.api._plan import PlannedShard, PlannedStep, PlannedVariant
from mconv.api._store import Maintained, StoredStep
from mconv.values import (
    Checked,
    ErrorInfo,
    Found,
    OutputError,
    Placement,
    Quantized,
    Report,
    Tolerance,
    Verification,
    from_json,
)
from tests.unit.reports.factory import report

GOOD, BAD = report(passed=1), report(passed=1, failed=1)
ENGINE = {
    "store": None,
    "jobs": None,
    "measure": True,
    "executor": "local",
    "ray_address": None,
    "install": None,
}
CHECKED = Checked(path="a\n::error::x", format="onnx", size_bytes=1234, verdict="passed")
VERIFIED = Verification(
    runtime="r",
    placement=Placement(provider="P", device="cpu"),
    samples=1,
    outputs=(OutputError(name="y", elements=1, max_abs=0.5, cosine=0.9),),
    tolerance=Tolerance(),
    verdict="failed",
    reasons=("too far",),
)
STEP = PlannedStep(
    key="k" * 64, kind="export", plugin="sources/onnx", label="l", inputs={}, needed=True
)
READY = Environment(name="training", words="timm", ready=True, folder="/e/t", megabytes=900)
MISSING = Environment(name="openvino", words="nncf", ready=False, folder="/e/o", megabytes=400)
PLANNED = Planned(
    (PlannedVariant(id="m/onnx/fp32", steps={"export": STEP.key}),),
    (STEP, replace(STEP, key="j" * 64, needed=False)),
    SimpleNamespace(),  # type: ignore[arg-type]
    (READY, MISSING),
)
FOUND = Found(
    path="a/m.onnx",
    format="onnx",
    kind="model",
    source="onnx",
    size_bytes=2_000_000,
    parameters=500_000,
)
Called = Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, object], list[Any]]:
    """Returns a function that has one of the API's return a value, and notes how it is called."""

    def set_answer(name: str, value: object) -> list[Any]:
        calls: list[Any] = []

        def called(*arguments: object, **named: object) -> object:
            named.pop("progress", None)
            calls.append((arguments, named))
            return value

        monkeypatch.setattr(api, name, called)
        return calls

    return set_answer


def test_every_module_is_a_command_with_help() -> None:
    for module in import_commands():
        name = module.__name__.rpartition(".")[2].rstrip("_")
        assert module.HELP
        assert module.HELP[0].islower()
        assert f" {name} " in f"{make_parser().format_help()} "


ONLY = {"only": ["a", "b/*"], "out": Path("o"), "shard": "1/2", "baseline": Path("b.json")}
CALLS: list[tuple[list[str], str, object, tuple[Any, ...], Mapping[str, Any]]] = [
    (
        ["run"],
        "run",
        GOOD,
        (Path("models.yml"),),
        {
            **ENGINE,
            "only": [],
            "out": Path("out"),
            "shard": None,
            "baseline": None,
            "trace": None,
            "fail_on": "failed",
            "fail_on_unverified": None,
        },
    ),
    (
        [
            "run",
            "x.yml",
            "--only",
            "a",
            "--only",
            "b/*",
            "--out",
            "o",
            "--shard",
            "1/2",
            "--baseline",
            "b.json",
            "--fail-on",
            "never",
            "--no-measure",
            "--jobs",
            "3",
            "--store",
            "s",
            "--executor",
            "ray",
            "--ray-address",
            "h:1",
            "--trace",
            "t.json",
            "--no-install",
        ],
        "run",
        GOOD,
        (Path("x.yml"),),
        {
            **ONLY,
            "store": "s",
            "jobs": 3,
            "measure": False,
            "executor": "ray",
            "ray_address": "h:1",
            "fail_on": "never",
            "fail_on_unverified": None,
            "trace": Path("t.json"),
            "install": False,
        },
    ),
    (["setup"], "setup", (), (Path("models.yml"),), {"tools": []}),
    (["setup", "--tool", "openvino"], "setup", (), (None,), {"tools": ["openvino"]}),
    (["setup", "x.yml"], "setup", (READY,), (Path("x.yml"),), {"tools": []}),
    (
        ["plan", "x.yml", "--only", "a", "--no-measure"],
        "plan",
        PLANNED,
        ("x.yml",),
        {"only": ["a"], "store": None, "measure": False},
    ),
    (["find"], "find", (FOUND,), (Path("."),), {}),
    (["schema", "mixed"], "schema", {}, ("mixed",), {}),
    (["verify", "m.onnx"], "check", CHECKED, (Path("m.onnx"),), {}),
    (
        ["verify", "d", "--against", "m", "--samples", "s.npz"],
        "verify",
        replace(VERIFIED, verdict="passed"),
        (Path("d"),),
        {"against": Path("m"), "samples": "s.npz", "store": None, "install": None},
    ),
    (["store", "list", "--store", "s"], "list_store", (), ("s",), {}),
    (
        ["store", "prune", "--days", "2", "--max-size", "5GB"],
        "prune_store",
        Maintained(entries=3),
        (None,),
        {"days": 2.0, "max_size": "5GB"},
    ),
    (
        ["quantize", "m.onnx", "-p", "int4", "-o", "o", "--option", "a=1", "--option", "b=x"],
        "quantize",
        Quantized(path="o", precision="int4", quantizer="q", size_bytes=1, source_bytes=4),
        (Path("m.onnx"), "int4"),
        {
            "out": Path("o"),
            "method": None,
            "calibration": None,
            "config": None,
            "options": {"a": 1, "b": "x"},
        },
    ),
]


@pytest.mark.parametrize(
    ("argv", "function", "value", "arguments", "named"),
    CALLS,
    ids=[" ".join(argv)[:30] for argv, *_ in CALLS],
)
def test_arguments_reach_the_api(
    answer: Callable[[str, object], list[Any]],
    argv: list[str],
    function: str,
    value: object,
    arguments: tuple[Any, ...],
    named: Mapping[str, Any],
) -> None:
    calls = answer(function, value)
    assert main(argv) == 0
    assert calls == [(arguments, named)]


def test_convert_reads_options_as_yaml_and_inputs_as_axes(
    answer: Callable[[str, object], list[Any]],
) -> None:
    made = answer("make_manifest", "the manifest")
    ran = answer("run", BAD)
    argv = ["convert", "m.pt", "--to", "onnx", "--to", "openvino:fp16", "--from", "pytorch"]
    argv += ["--factory", "net:make", "--option", "cache=true", "--option", "parts=[a, b]"]
    argv += ["--input", "x:float32:batch,3,224", "--optimize", "none", "--samples", "s.npz"]
    assert main(argv) == 1  # a variant failed
    ((arguments, named),) = made
    assert arguments == ("m.pt", ["onnx", "openvino:fp16"])
    assert named["options"] == {
        "format": "pytorch",
        "factory": "net:make",
        "task": None,
        "cache": True,
        "parts": ["a", "b"],
    }
    assert named["inputs"] == {"x": {"dtype": "float32", "shape": ["batch", 3, 224]}}
    assert (named["samples"], named["model"]) == ("s.npz", {"optimize": "none"})
    assert ran == [(("the manifest",), {"out": Path("out"), **ENGINE})]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["convert", "m", "--to", "onnx", "--option", "cache"], "is not NAME=VALUE"),
        (["convert", "m", "--to", "onnx", "--option", "a=[1"], "read as YAML"),
        (["convert", "m", "--to", "onnx", "--input", "x:float32"], "NAME:DTYPE:AXIS"),
        (["convert", "m"], "--to"),
        (["run", "--jobs", "0"], "0 is not above zero"),
        (["run", "--jobs", "x"], "--jobs"),
        (["run", "--fail-on", "always"], "invalid choice"),
        (["quantize", "m.onnx", "--option", "=1"], "is not NAME=VALUE"),
        (["nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_mistakes_exit_2_and_say_what_is_right(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("value", "code"), [(GOOD, 0), (BAD, 1)])
def test_run_prints_a_table_or_the_results(
    answer: Callable[[str, object], list[Any]],
    capsys: pytest.CaptureFixture[str],
    value: Report,
    code: int,
) -> None:
    answer("run", value)
    assert main(["run"]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "good-0/onnx/int8" in printed.err
    assert str(Path("out/report.html")) in printed.err
    assert main(["run", "--json"]) == code
    assert from_json(capsys.readouterr().out, Report) == value


def test_verify_says_how_it_went(
    answer: Callable[[str, object], list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    answer("verify", VERIFIED)
    assert main(["verify", "d", "--against", "m", "--json"]) == 1
    printed = capsys.readouterr()
    assert from_json(printed.out, Verification) == VERIFIED
    assert printed.err.splitlines()[-2:] == ["too far", "failed"]
    assert "cosine 0.9" in printed.err
    answer("check", replace(CHECKED, verdict="failed", problems=("cut off",)))
    assert main(["verify", "m.onnx"]) == 1
    printed_error = capsys.readouterr().err
    assert "error: cut off" in printed_error
    assert "\n::error::" not in printed_error


def test_plan_prints_steps_json_or_shards(
    answer: Callable[[str, object], list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    answer("plan", PLANNED)
    assert main(["plan"]) == 0
    printed = capsys.readouterr().out
    assert "run     export    sources/onnx" in printed
    assert "1 variants, 2 steps, 1 to run\n" in printed
    assert "  made     environment training (timm, 900 MB)\n" in printed
    assert "  missing  environment openvino (nncf, about 400 MB)\n" in printed
    assert printed.endswith("`mconv setup models.yml` ahead\n")
    assert main(["plan", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["variants"][0]["id"] == "m/onnx/fp32"
    split = answer("split_plan", (PlannedShard(index=1, variants=("m/onnx/fp32",), seconds=90.0),))
    assert main(["plan", "--shards", "2"]) == 0
    assert "1/2: 1 variants, about 1.5 min\n  m/onnx/fp32" in capsys.readouterr().out
    assert split == [((PLANNED, 2), {})]
    answer("shard_matrix", {"include": []})
    assert main(["plan", "--format", "github"]) == 0
    assert capsys.readouterr().out == '{"include": []}\n'


def test_setup_says_what_is_there_and_what_cannot_be(
    answer: Callable[[str, object], list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    error = ErrorInfo(type="X", message="the environment 'x': no network\n::error::x", hint="wait")
    answer("setup", (READY, replace(MISSING, error=error), replace(READY, name="t", folder="")))
    assert main(["setup"]) == 1
    printed = capsys.readouterr().err
    assert "training: 900 MB in /e/t\n" in printed
    assert "openvino: the environment 'x': no network" in printed
    assert "hint: wait\n" in printed
    assert "\n::error::" not in printed
    assert "t: its packages lie beside mconv\n" in printed
    answer("setup", (READY,))
    assert main(["setup", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["megabytes"] == 900


def test_find_prints_a_table_json_or_a_manifest(
    answer: Callable[[str, object], list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    needy = replace(FOUND, path="b", source=None, needs=("a factory",), problems=("cut off",))
    answer("find", (FOUND, needy))
    assert main(["find", "x"]) == 0
    printed = capsys.readouterr().out
    assert "a/m.onnx  onnx  2.00 MB  0.50 M parameters" in printed
    assert "    wrong: cut off\n    needs: a factory" in printed
    assert "2 models, 1 convert as they are" in printed
    assert main(["find", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    draft = answer("draft_manifest", "version: 1\n")
    assert main(["find", "x", "--manifest"]) == 0
    assert capsys.readouterr().out == "version: 1\n"
    assert draft == [((Path("x"), (FOUND, needy)), {})]
    answer("find", ())
    assert main(["find", "x"]) == 0
    assert capsys.readouterr().out == "no model under x\n"


def test_list_shows_options_with_their_defaults(
    answer: Callable[[str, object], list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    option = {"description": "how far", "default": 3}
    entry = {"summary": "A target.", "precisions": ["fp32"], "options": {"level": option}}
    # the command line itself offers the quantizers
    answer("catalogue", {"targets": {"mine": entry}, "quantizers": {}})
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Targets"
    assert lines[1].split() == ["mine", "A", "target.", "[fp32]"]
    assert lines[2].split() == ["level", "how", "far", "(default:", "3)"]
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["targets"]["mine"]["summary"] == "A target."


def test_report_merges_compares_and_writes(
    answer: Callable[[str, object], list[Any]],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    answer("read_results", GOOD)
    merged = answer("merge_results", BAD)
    compared = answer("compare_results", GOOD)
    assert main(["report", "a.json", "b.json", "--format", "text"]) == 0
    assert "bad-0/onnx/int8" in capsys.readouterr().out
    assert merged == [(([GOOD, GOOD],), {})]
    assert compared == []
    out = tmp_path / "r.html"
    argv = ["report", "a.json", "--baseline", "c.json", "--format", "html", "-o", str(out)]
    assert main(argv) == 0
    assert capsys.readouterr().out == ""
    assert compared == [((BAD, GOOD), {})]
    assert out.read_text().startswith("<!doctype html>")


def test_store_prints_what_was_done(
    answer: Callable[[str, object], list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    answer("list_store", (StoredStep(key="k" * 64, bytes=1234, seconds=1.0, label="export m"),))
    assert main(["store", "list"]) == 0
    assert capsys.readouterr().out.split() == [
        "k" * 12,
        "1,234",
        "bytes",
        "1.0",
        "s",
        "export",
        "m",
    ]
    answer("verify_store", Maintained(entries=2, removed=("k" * 64,)))
    assert main(["store", "verify"]) == 1
    assert "2 entries, 1 damaged" in capsys.readouterr().out
    answer("verify_store", Maintained(entries=2))
    assert main(["store", "verify"]) == 0


def test_publish_sends_notes_to_stderr_and_dry_runs_send_nothing(
    answer: Callable[[str, object], list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    sent = answer("publish_results", ("no comment was made",))
    answer("render_comment", "### text")
    assert main(["publish", "r.json", "--comment", "--release"]) == 0
    assert capsys.readouterr().err == "note: no comment was made\n"
    ((arguments, named),) = sent
    assert arguments[0] == Path("r.json")
    assert (named["comment"], named["checks"], named["release"]) == (True, False, api.EVENT_TAG)
    assert main(["publish", "r.json", "--comment", "--dry-run"]) == 0
    assert capsys.readouterr().out == "### text\n"
    assert len(sent) == 1


@pytest.mark.parametrize(("fetched", "code"), [(True, 0), (False, 1)])
def test_baseline_tells_by_its_code_whether_there_is_one(
    answer: Callable[[str, object], list[Any]], fetched: bool, code: int
) -> None:
    calls = answer("fetch_baseline", fetched)
    assert main(["baseline", "--branch", "b"]) == code
    ((arguments, named),) = calls
    assert arguments[0] == Path("baseline.json")
    assert named == {"artifact": "mconv-results", "branch": "b"}

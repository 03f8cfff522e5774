"""What makes a module a plug-in: its functions, its constants, the defaults, and its signatures."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mconv import contracts
from mconv.contracts import (
    Optimizer,
    Source,
    Target,
    build_plugin,
    check_plugin,
    check_signatures,
)
from mconv.errors import MconvError
from mconv.values import SourceConfig


def module(docstring: str = "Writes nothing.\n\nAnd more.", **content: Any) -> ModuleType:
    made = ModuleType("own.writer", docstring)
    vars(made).update(content)
    return made


def write(model, out, *, precision, options, name, calibration):  # type: ignore[no-untyped-def]
    return None


def test_a_module_becomes_a_value_with_the_family_s_defaults() -> None:
    target = build_plugin(Target, "writer", module(write=write, PRECISIONS={"fp32": None}))
    assert isinstance(target, Target)
    assert (target.name, target.module, target.summary) == (
        "writer",
        "own.writer",
        "Writes nothing.",
    )
    assert target.write is write
    assert target.sizes({}) == ()
    assert target.part({}) is None
    assert target.accepts == ("onnx",)
    assert target.check(precision="fp32", options={}, method=None) is None


def test_a_summary_may_be_written_apart_from_the_docstring() -> None:
    content = module(write=write, PRECISIONS={}, SUMMARY="In short", STATIC=True)
    target = build_plugin(Target, "writer", content)
    assert isinstance(target, Target)
    assert (target.summary, target.static) == ("In short", True)


@pytest.mark.parametrize(
    ("content", "missing"),
    [({"PRECISIONS": {}}, r"no write\(\)"), ({"write": write}, "no PRECISIONS\n")],
)
def test_what_a_family_must_define_is_named(content: dict[str, Any], missing: str) -> None:
    with pytest.raises(MconvError, match=missing):
        build_plugin(Target, "writer", module(**content))


@pytest.mark.parametrize(
    ("constants", "words"),
    [
        ({"RUNTIMES": "onnxruntime"}, r"RUNTIMES must be tuple\[str, \.\.\.\], not 'onnxruntime'"),
        ({"RUNTIMES": "onnxruntime"}, r'hint: .*\("onnxruntime",\)'),
        ({"PRECISIONS": ("fp32",)}, r"PRECISIONS must be Mapping\[str, str \| None\], not"),
        ({"PRECISIONS": {"fp32": 32}}, "PRECISIONS must be"),
        ({"OPTIONS": {"level": "text"}}, r"OPTIONS must be Mapping\[str, Mapping\[str, Any\]\]"),
        ({"STATIC": "no"}, "STATIC must be bool, not 'no'"),
    ],
)
def test_a_constant_of_another_type_is_refused(constants: dict[str, Any], words: str) -> None:
    content = {"write": write, "PRECISIONS": {"fp32": None}, **constants}
    with pytest.raises(MconvError, match=words):
        build_plugin(Target, "writer", module(**content))


def test_lists_and_sets_do_for_tuples_and_frozen_sets() -> None:
    content = module(write=write, PRECISIONS={"fp32": None}, RUNTIMES=["a", "b"], DOMAINS={""})
    target = build_plugin(Target, "writer", content)
    assert isinstance(target, Target)
    assert (target.runtimes, target.domains) == (("a", "b"), frozenset({""}))


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "description": "d", "default": 3}, None),
        ({"enum": ["a", "b"], "description": "d"}, None),
        ({"type": "integer"}, "'level' has no description"),
        (
            {"type": "string", "pattern": "a+", "description": "d"},
            "has the keyword 'pattern', which",
        ),
        (
            {"type": ["string", "null"], "description": "d"},
            r"has the type \['string', 'null'\], which",
        ),
    ],
)
def test_a_schema_says_only_what_values_are_held_to(
    schema: dict[str, Any], words: str | None
) -> None:
    content = module(write=write, PRECISIONS={"fp32": None}, OPTIONS={"level": schema})
    plugin = build_plugin(Target, "writer", content)
    if words is None:
        check_plugin(plugin)
    else:
        with pytest.raises(MconvError, match=words):
            check_plugin(plugin)


@pytest.mark.parametrize(
    ("function", "fits"),
    [
        (lambda model, out, *, level: {}, True),
        (lambda a, b, level: {}, True),  # positional parameters may have other names
        (lambda a, b, *, level, more=1: {}, True),
        (lambda *args, **kwargs: {}, True),
        (lambda model, out: {}, False),
        (lambda model, out, *, strength: {}, False),
        (lambda model, out, third, *, level: {}, False),
        (dict, True),  # built in: nothing to look at
    ],
)
def test_a_function_must_be_callable_as_its_family_s(function: Any, fits: bool) -> None:
    plugin = build_plugin(Optimizer, "idle", module(optimize=function, LEVELS=(), ORDER=0))
    if fits:
        check_signatures(plugin)
    else:
        with pytest.raises(MconvError, match=r"own\.writer\.optimize\(\) does not fit.*level"):
            check_signatures(plugin)


def test_every_function_of_a_family_is_a_field_of_its_value() -> None:
    for kind, functions in contracts.FUNCTIONS.items():
        assert functions.keys() <= kind.__dataclass_fields__.keys()
        for protocol in functions.values():
            assert "self" not in contracts.read_signature(protocol).parameters


def test_a_source_s_files_are_its_file_or_all_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "b/c").mkdir(parents=True)
    for name in ("z.bin", "b/c/a.bin"):
        (tmp_path / name).write_bytes(b"1")
    whole = SourceConfig(format="f", path=str(tmp_path), root=str(tmp_path))
    assert contracts.list_all_files(whole) == [tmp_path / "b/c/a.bin", tmp_path / "z.bin"]
    single = SourceConfig(format="f", path=str(tmp_path / "z.bin"), root=str(tmp_path))
    assert contracts.list_all_files(single) == [tmp_path / "z.bin"]
    default = Source.__dataclass_fields__["files"].default
    assert default is contracts.list_all_files


def test_details_of_another_type_are_not_carried() -> None:
    told = {"load_ms": 3, "first_run_ms": "4", "download_bytes": 5, "runtime_bytes": 6.5, "more": 1}
    assert contracts.read_carried(told) == {"load_ms": 3.0, "download_bytes": 5}
    told = {"load_ms": None, "first_run_ms": 4, "download_bytes": "5", "runtime_bytes": 6}
    assert contracts.read_carried(told) == {"first_run_ms": 4.0, "runtime_bytes": 6}

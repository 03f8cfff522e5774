"""ONNX's backend node tests through the native WebNN generator, in a real browser.

    python -m tests.browser.webnn_node_tests [--only PREFIX] [--table docs/webnn-operators.md]
    [--browser PATH]

The cases are the frozen set in the wheel onnx==1.22.0 (later wheels ship none); pip downloads it
into build/. Every case whose operators the generator claims is emitted, built and run. Prints
passed / refused / wrong; wrong must be 0 (exit code 1 otherwise). An input that WebNN needs when
the graph is built (a shape, axes, pads …) is made a constant with the value of the test."""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from mconv.errors import MconvError
from mconv.targets._webnn import emit
from mconv.targets._webnn.emitter import EmitResult
from mconv.targets._webnn.operators import FAMILIES, OPERATORS
from tests.browser.page import Page, PageError, find_browser, open_page

WHEEL = "onnx==1.22.0"
CACHE = Path(__file__).resolve().parents[2] / "build" / "onnx-node-tests"
INSIDE = "onnx/backend/test/data/node/"
# ONNX's runner: 1e-3 and 1e-7; WebNN's backend computes sin, exp … in float32 with other
# polynomials
RTOL, ATOL = 1e-3, 1e-5
HALF = 1e-2  # for float16
# evaluated when the graph is written
FOLDED = {"Constant", "ConstantOfShape", "Range", "Shape", "Size", "EyeLike"}
STATIC = {  # operator -> inputs that must be constants
    "CumSum": (1,),
    "Dropout": (1, 2),
    "Expand": (1,),
    "OneHot": (1, 2),
    "Pad": (1, 2, 3),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
    "ConstantOfShape": (0,),
    "Range": (0, 1, 2),
    "DequantizeLinear": (1, 2),
    "QuantizeLinear": (1, 2),
} | {
    f"Reduce{k}": (1,)
    for k in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
}


@dataclass(frozen=True)
class Case:
    name: str
    model: onnx.ModelProto
    sets: list[tuple[list[np.ndarray | None], list[np.ndarray | None]]]

    @property
    def operators(self) -> set[str]:
        return {
            n.op_type if n.domain in ("", "ai.onnx") else f"{n.domain}.{n.op_type}"
            for n in self.model.graph.node
        }


@dataclass(frozen=True)
class Outcome:
    case: str
    operators: frozenset[str]
    status: str  # passed, refused, wrong
    detail: str = ""
    folded: bool = False  # passed, but all of it was evaluated when the graph was written


def wheel() -> Path:
    """The wheel of the frozen cases, downloaded once."""
    wheels = sorted(CACHE.glob("onnx-*.whl"))
    if not wheels:
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
            str(CACHE),
            WHEEL,
        ]
        subprocess.run(command, check=True)
        wheels = sorted(CACHE.glob("onnx-*.whl"))
    return wheels[0]


def cases(prefix: str = "test_") -> Iterator[Case]:
    """The cases made of tensors, in name order."""
    with zipfile.ZipFile(wheel()) as archive:
        names = sorted(n for n in archive.namelist() if n.startswith(INSIDE))
        folders = sorted(
            {n[len(INSIDE) :].split("/")[0] for n in names if n[len(INSIDE) :].startswith(prefix)}
        )
        by_folder: dict[str, list[str]] = {}
        for name in names:
            by_folder.setdefault(name[len(INSIDE) :].split("/")[0], []).append(name)
        for folder in folders:
            model = onnx.load_from_string(archive.read(f"{INSIDE}{folder}/model.onnx"))
            if all(
                v.type.HasField("tensor_type") for v in (*model.graph.input, *model.graph.output)
            ):
                yield Case(folder, model, read_sets(archive, by_folder[folder]))


def read_sets(
    archive: zipfile.ZipFile, names: list[str]
) -> list[tuple[list[np.ndarray | None], list[np.ndarray | None]]]:
    sets: dict[str, tuple[list[np.ndarray | None], list[np.ndarray | None]]] = {}
    for name in sorted(names, key=lambda n: (len(n), n)):
        *_, folder, file = name.split("/")
        if file.endswith(".pb"):
            content = archive.read(name)
            array = numpy_helper.to_array(onnx.TensorProto.FromString(content)) if content else None
            sets.setdefault(folder, ([], []))[0 if file.startswith("input") else 1].append(array)
    return [sets[key] for key in sorted(sets)]


def freeze(case: Case, *, everything: bool) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model with the inputs it needs as constants made so, and the other inputs' values.

    ``everything``: all inputs that are not float.
    """
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    values = {
        v.name: a for v, a in zip(model.graph.input, case.sets[0][0], strict=False) if a is not None
    }
    wanted = {
        node.input[i]
        for node in model.graph.node
        for i in STATIC.get(node.op_type, ())
        if i < len(node.input)
    }
    wanted |= {
        name
        for name, array in values.items()
        if array.dtype.name in ("int4", "uint4", "int2", "uint2")
    }
    if everything:
        wanted |= {
            name for name, array in values.items() if array.dtype.name not in ("float32", "float16")
        }
    for name in sorted(wanted & set(values)):
        model.graph.initializer.append(numpy_helper.from_array(values.pop(name), name))
    fed = [v for v in model.graph.input if v.name in values]
    for value in fed:
        shape = values[value.name].shape
        value.type.tensor_type.shape.CopyFrom(
            onnx.helper.make_tensor_type_proto(1, shape).tensor_type.shape
        )
    del model.graph.input[:]
    model.graph.input.extend(fed)
    return model, values


def run_case(case: Case, page: Page, folder: Path) -> Outcome:
    operators = frozenset(case.operators)
    problem = ""
    for everything in (False, True):
        model, values = freeze(case, everything=everything)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        try:
            result = emit(folder / "model.onnx", folder, dims={}, precision="fp32")
            break
        except MconvError as refusal:
            problem = problem or refusal.message
    else:
        return Outcome(case.name, operators, "refused", problem)
    for inputs, expected in (
        case.sets[:1] if len(values) < len(case.model.graph.input) else case.sets
    ):
        feeds = {
            v.name: a
            for v, a in zip(case.model.graph.input, inputs, strict=False)
            if v.name in values and a is not None
        }
        try:
            got = page.run(folder, feeds, result)
        except PageError as failure:
            return Outcome(case.name, operators, "wrong", f"browser: {failure}")
        if wrong := compare(result, got, expected):
            return Outcome(case.name, operators, "wrong", wrong)
    return Outcome(case.name, operators, "passed", folded=not result.operators)


def compare(
    result: EmitResult, got: dict[str, np.ndarray], expected: list[np.ndarray | None]
) -> str:
    for output, want in zip(result.outputs, expected, strict=False):
        if want is None:
            continue
        have = got[output.name]
        if have.shape != want.shape or have.dtype != want.dtype:
            return f"{output.name}: {have.dtype}{have.shape} for {want.dtype}{want.shape}"
        half = want.dtype == np.float16
        a, w = have.astype(np.float64), want.astype(np.float64)
        if not np.allclose(
            a, w, rtol=HALF if half else RTOL, atol=HALF if half else ATOL, equal_nan=True
        ):
            with np.errstate(invalid="ignore"):
                return f"{output.name}: off by {np.nanmax(np.abs(a - w)):.3g}"
    return ""


def run_all(prefix: str = "test_", browser: Path | None = None, *, every: int = 1) -> list[Outcome]:
    """Run the cases whose operators the generator claims, or one in ``every`` of them."""
    known = set(OPERATORS) | FOLDED
    outcomes = []
    with (
        tempfile.TemporaryDirectory() as temporary,
        open_page(Path(temporary), browser or find_browser()) as page,
    ):
        claimed = (case for case in cases(prefix) if is_claimed(case, known))
        for index, case in enumerate(itertools.islice(claimed, 0, None, every)):
            folder = Path(temporary) / str(index)
            folder.mkdir()
            outcomes.append(run_case(case, page, folder))
    return outcomes


def is_claimed(case: Case, known: set[str]) -> bool:
    """Whether the generator claims all operators of a case, or ONNX defines them by ones that it
    claims."""
    functions = {op for op in case.operators - known if has_body(case, op)}
    if case.operators - known - functions:
        return False
    return not (functions and not case.operators & known and "expanded" in case.name)


def has_body(case: Case, op: str) -> bool:
    """Whether ONNX defines the operator by a function, which the generator then inlines."""
    version = next((o.version for o in case.model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if not onnx.defs.has(op, version, ""):
        return False
    schema = onnx.defs.get_schema(op, version, "")
    return bool(schema.has_function or schema.has_context_dependent_function)


def table(outcomes: list[Outcome], browser: str) -> str:
    """The operators by family, with the cases passed and refused, as a Markdown page."""
    passed: Counter[str] = Counter()
    refused: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if len(outcome.operators) == 1:
            (op,) = outcome.operators
            if outcome.status == "passed":
                passed[op] += not outcome.folded
            else:
                refused.setdefault(op, []).append(outcome)
    total = Counter(o.status for o in outcomes)
    lines = [
        "# Operators of the native WebNN target",
        "",
        "Written by `python -m tests.browser.webnn_node_tests --table docs/webnn-operators.md`; "
        "do not edit.",
        "",
        f"ONNX's backend node tests (the frozen set of `{WHEEL}`), run in {browser} on its CPU "
        "backend:",
        f"**{total['passed']} passed, {total['refused']} refused, {total['wrong']} wrong**,",
        f"of the cases whose operators are claimed. {sum(o.folded for o in outcomes)} of those "
        "passed had nothing left to run:",
        "the test's integer inputs were made constants and all was evaluated when written: the "
        "table does not count these.",
        "A refusal is an error when the model is written, with the operator, the node and the "
        "reason; nothing is approximated.",
        "`Shape`, `Size`, `Range` and everything else that depends on constants only is evaluated "
        "when the graph is written.",
        "Operators that ONNX defines by a function of these (`Attention`, "
        "`MeanVarianceNormalization` …) are expanded first.",
        "",
        "| family | operator | passed | refused | refused because |",
        "|---|---|---:|---:|---|",
    ]
    for family, operators in FAMILIES.items():
        for op in sorted(operators):
            reasons = sorted({reason(o.detail) for o in refused.get(op, [])})
            lines.append(
                f"| {family} | {op} | {passed[op] or '–'} | {len(refused.get(op, [])) or '–'} | "
                f"{'; '.join(reasons)} |"
            )
    others = sorted(op for op in set(passed) | set(refused) if op not in OPERATORS)
    for op in others:
        reasons = sorted({reason(o.detail) for o in refused.get(op, [])})
        kind = "evaluated" if op in FOLDED else "expanded"
        lines.append(
            f"| {kind} | {op} | {passed[op] or '–'} | {len(refused.get(op, [])) or '–'} | "
            f"{'; '.join(reasons)} |"
        )
    return "\n".join(lines) + "\n"


def reason(detail: str) -> str:
    """A refusal without the names of nodes."""
    text = detail.removeprefix("native WebNN cannot represent this model: ").split(" (node")[0]
    return text.replace("|", "\\|").replace("\n", " ")[:160]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="test_", help="only cases whose name begins so")
    parser.add_argument("--table", type=Path, help="write the operator table there")
    parser.add_argument(
        "--browser",
        type=Path,
        help="the browser's executable (default: the npm package's, else Playwright's)",
    )
    parser.add_argument("--verbose", action="store_true", help="list refusals too")
    options = parser.parse_args()
    outcomes = run_all(options.only, options.browser)
    for outcome in outcomes:
        if outcome.status == "wrong" or (options.verbose and outcome.status == "refused"):
            print(f"{outcome.status}: {outcome.case}: {outcome.detail}")
    total = Counter(o.status for o in outcomes)
    folded = sum(o.folded for o in outcomes)
    print(
        f"passed {total['passed']} ({folded} evaluated whole when written), refused "
        f"{total['refused']}, wrong {total['wrong']}"
    )
    if options.table:
        options.table.write_text(table(outcomes, "headless Chromium"), encoding="utf-8")
    return 1 if total["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())

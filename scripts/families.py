#!/usr/bin/env python3
"""Convert, verify and measure every model family for onnx, openvino and webgpu, and write
docs/families.md from results.json.

    python scripts/families.py [--work DIR] [--no-measure] [FAMILY …]
    python scripts/families.py --results FILE [--results FILE …]

``--results`` writes the page from the results of earlier runs. Nothing is downloaded; see
tests/family_models.py."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mconv.values import Report, VariantResult, from_json  # noqa: E402
from tests import family_models  # noqa: E402

TARGETS = ("onnx", "openvino", "webgpu")
PAGE = ROOT / "docs/families.md"
HEAD = """# Model families

Written by `scripts/families.py` from the results of a run; do not edit. Every family is a small
model of a transformers configuration with seeded weights
([tests/family_models.py](../tests/family_models.py)), exported with free batch and length where the
model has them, converted in fp32, compared with the framework's own answers, and, where it writes
text, held to the framework's own greedy tokens, every one of them. The size says nothing of real
checkpoints; that it is right does.

A cell: the verdict, the largest cosine distance of any output, greedy tokens equal of those
compared, the median of one call (of all parts together, where there are several; on
{adapter}). Files are `PART/model.onnx` and so on:
[manifest.md](manifest.md#hugging-face-parts-and-cache).
"""


def run(work: Path, names: list[str], more: list[str]) -> Path:
    """One run of all of ``names`` in ``work``; returns its results.json."""
    models = [family_models.write(name, work) | {"targets": list(TARGETS)} for name in names]
    (work / "models.yml").write_text(
        yaml.safe_dump({"version": 1, "models": models}, sort_keys=False), encoding="utf-8"
    )
    folders = ["--out", str(work / "out"), "--store", str(work / "store")]
    command = [sys.executable, "-m", "mconv", "run", str(work / "models.yml"), *folders, *more]
    subprocess.run(command, cwd=ROOT, check=False)  # a family that fails is a row of the table
    return work / "out/results.json"


def page(reports: Sequence[Report]) -> str:
    """The table: one row a family, in the order of the list."""
    report = reports[0]
    found = {v.id: v for r in reports for v in r.variants}
    used = {m.name: m for r in reports for m in r.models}
    adapters = {
        v.verification.placement.adapter
        for v in found.values()
        if v.verification and v.verification.placement.adapter
    }
    lines = [
        HEAD.format(
            adapter=f"webgpu: {', '.join(sorted(adapters))}" if adapters else "webgpu: no adapter"
        ),
        "",
    ]
    lines += [
        f"| Family | Exported by | {' | '.join(TARGETS)} |",
        "| :-- | :-- | :-- | :-- | :-- |",
    ]
    reasons = []
    for name, (title, _, _) in family_models.FAMILIES.items():
        if name not in used:
            lines.append(f"| {title} | not run | {' | '.join('–' for _ in TARGETS)} |")
            continue
        row = [found.get(f"{name}/{target}/fp32") for target in TARGETS]
        reasons += [f"- **{v.id}**: {_why(v)}" for v in row if v and v.status != "passed"]
        lines.append(
            f"| {title} | {used[name].exporter or '–'} | {' | '.join(_cell(v) for v in row)} |"
        )
    if reasons:
        lines += ["", "What does not pass, in the tool's own words:", "", *reasons]
    tools = {
        k: report.tools[k]
        for k in ("torch", "transformers", "onnxruntime", "openvino")
        if k in report.tools
    }
    lines += [
        "",
        f"mconv {report.mconv}; {', '.join(f'{k} {v}' for k, v in tools.items())}; "
        f"{report.machine.cores} cores.",
    ]
    return "\n".join(lines) + "\n"


def _cell(v: VariantResult | None) -> str:
    if v is None:
        return "not run"
    parts = [f"**{v.status}**"]
    if v.verification:
        cosines = [o.cosine for o in v.verification.outputs if o.cosine is not None]
        parts += [f"{max(0.0, 1 - min(cosines)):.0e}"] if cosines else []
        if g := v.verification.generation:
            parts.append(f"{round(g.agreement * g.tokens)}/{g.tokens} tokens")
    if v.benchmark:
        parts.append(
            f"{v.benchmark.latency.p50_ms:.3g} ms"
            + ("" if v.benchmark.comparable else " (software)")
        )
    return ", ".join(parts)


def _why(v: VariantResult) -> str:
    said = [*v.reasons, *([f"{v.error.step}: {v.error.message}"] if v.error else [])]
    return " ".join("; ".join(said).split()).replace("|", "/")[:400]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="FAMILY",
        help=f"default: all of {', '.join(family_models.FAMILIES)}",
    )
    parser.add_argument(
        "--work",
        type=Path,
        help="keep models, store and artifacts here (default: a temporary folder)",
    )
    parser.add_argument(
        "--no-measure", action="store_true", help="verify only: no latencies in the table"
    )
    parser.add_argument(
        "--results",
        type=Path,
        action="append",
        help="write the page from this results.json; repeatable",
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        more = ["--no-measure"] if args.no_measure else []
        results = args.results or [run(work, args.names or list(family_models.FAMILIES), more)]
        PAGE.write_text(
            page([from_json(path.read_bytes(), Report) for path in results]), encoding="utf-8"
        )
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())

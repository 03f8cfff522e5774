"""What a model is made of, where it runs, and what to deliver.

Every target is tried in fp32, the precisions are weighed up, and the first of them tried too where
asked for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mconv import compare, graph, registry, samples
from mconv.commands import _engine, convert
from mconv.engine import advisor
from mconv.engine.advisor import Advice, Compatibility, Preview, Recommendation, Share
from mconv.errors import SourceError, StepError, UsageError, log_line
from mconv.manifest.config import AUTO
from mconv.values import VariantResult, to_json

if TYPE_CHECKING:
    import numpy as np

HELP = "say what to convert a model to, and why"
TRIED_FOR_LATENCY = 3
SHOWN = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    convert.add_source_arguments(parser)
    parser.add_argument(
        "--target",
        metavar="TARGET",
        action="append",
        default=[],
        help="ask for these only; repeatable",
    )
    parser.add_argument("--max-size", metavar="SIZE", help="of the files delivered, such as 20MB")
    parser.add_argument(
        "--max-latency",
        metavar="TIME",
        help="median of one inference, such as 10ms; the first few are then tried",
    )
    default = compare.DEFAULT_TOLERANCES[AUTO].cosine
    parser.add_argument(
        "--tolerance",
        metavar="COSINE",
        type=float,
        default=default,
        help=f"of the worst output (default {default})",
    )
    parser.add_argument(
        "--try",
        dest="tries",
        metavar="N",
        type=_engine.positive,
        help="convert, verify and measure the first N recommendations",
    )
    _engine.add_engine_arguments(parser)
    parser.set_defaults(optimize="basic")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")


def run(args: argparse.Namespace) -> int:
    advice = advise(args)
    if args.json:
        sys.stdout.write(to_json(advice))
    else:
        print(render(advice))
    return 0


def advise(args: argparse.Namespace) -> Advice:
    """Try, weigh up, try again. Raises StepError where the model cannot be exported or run,
    UsageError for an unknown target."""
    # weights alone run nowhere
    targets = {name: t for name, t in registry.targets().items() if "onnx" in t.accepts}
    if unknown := sorted(set(args.target) - targets.keys()):
        raise UsageError(
            f"there is no target {', '.join(unknown)}", hint=f"there are: {', '.join(targets)}"
        )
    asked = [
        f"{name}:fp32"
        for name in targets
        if "fp32" in targets[name].precisions and (not args.target or name in args.target)
    ]
    args.measure = bool(args.measure and (args.tries or args.max_latency))
    # of a precision that reads calibration data, under the limits that hold for what is delivered
    weighed = convert.manifest_of(args, {"targets": ["onnx:int4"], "limits": _limits(args)})
    done = _engine.carry_out(
        convert.manifest_of(args, {"targets": asked}),
        args,
        keep=("export", "optimize", "reference"),
    )
    if inner := sorted(
        p.parent.name for p in _made(done, ("export",)).glob(f"*/{graph.MODEL_FILE}")
    ):
        parts = ", ".join(inner)
        raise UsageError(
            f"the model is several: {parts}",
            hint=f"ask for one, with --option 'parts=[{inner[0]}]'",
        )
    model, reference = (
        _made(done, ("optimize", "export")) / graph.MODEL_FILE,
        _made(done, ("reference",)),
    )
    calibration = samples.load_feeds(
        _made(_engine.carry_out(weighed, args, only=("calibrate",)), ("calibrate",)) / samples.FILE
    )
    held_out = samples.load_feeds(reference / samples.FILE)
    preview = _preview(model, calibration, held_out)
    time = advisor.profile(
        model, max(held_out, key=lambda feed: sum(a.size for a in feed.values()))
    )
    about = advisor.architecture(model, preview, time)
    compatible = [advisor.compatibility(result, about.dynamic) for result in done.report.variants]
    limits = weighed.models[0].variants[0].limits
    ranked = advisor.recommend(compatible, preview, args.tolerance, limits)
    tries = args.tries or (TRIED_FOR_LATENCY if args.max_latency else 0)
    if tries and ranked:
        ranked = advisor.recommend(
            compatible, preview, args.tolerance, limits, _tried(args, ranked[:tries])
        )
    source = done.report.models[0]
    return Advice(
        model=source.path,
        format=source.format,
        exporter=source.exporter,
        architecture=about,
        targets=tuple(compatible),
        recommendations=ranked,
    )


def _made(done: _engine.Done, kinds: Sequence[str]) -> Path:
    """The files of the first of ``kinds`` that was planned. Raises StepError with the reason why
    they are not there."""
    steps = done.plan.variants[0].steps
    key = next(steps[kind] for kind in kinds if kind in steps)
    if (error := done.outcome.errors.get(key)) is not None:
        raise StepError(f"the model cannot be weighed up: {error.message}", hint=error.hint)
    return done.store.files(key)


def _limits(args: argparse.Namespace) -> dict[str, str]:
    asked = {"max_size": args.max_size, "max_latency": args.max_latency}
    return {name: text for name, text in asked.items() if text is not None}


def _tried(args: argparse.Namespace, ranked: Sequence[Recommendation]) -> Sequence[VariantResult]:
    """The recommendations, converted, verified and measured, held to the tolerance and the
    limits."""
    more = {
        "targets": [f"{one.target}:{one.precision}" for one in ranked],
        "tolerance": {"cosine": args.tolerance},
        "limits": _limits(args),
    }
    return _engine.carry_out(convert.manifest_of(args, more), args).report.variants


def _preview(
    model: Path,
    calibration: Sequence[Mapping[str, np.ndarray]],
    held_out: Sequence[Mapping[str, np.ndarray]],
) -> Preview:
    for quantizer in registry.quantizers().values():
        if quantizer.preview is not None:
            return msgspec.convert(
                quantizer.preview(model, calibration=calibration, held_out=held_out), Preview
            )
    raise SourceError("no quantizer here can preview a model")


def render(advice: Advice) -> str:
    """For a terminal: the parts, the targets, the ranking."""
    about = advice.architecture
    parameters = about.info.parameters or 0
    lines = [
        f"{log_line(advice.model)} ({advice.format}): {_count(parameters)} parameters, "
        f"{_size(about.size_bytes)} as ONNX fp32, "
        f"{about.info.nodes} nodes, opset {about.info.opset}"
        + (f", exported by {advice.exporter}" if advice.exporter else "")
    ]
    for spec in about.info.inputs:
        lines.append(
            f"  input {log_line(spec.name)}: {spec.dtype} [{', '.join(map(str, spec.shape))}]"
        )
    if about.dynamic:
        lines.append(f"  free axes: {', '.join(map(log_line, about.dynamic))}")
    lines += ["", "where the parameters are", *_shares(about.roles, _count)]
    lines += ["", "the largest weights", *_shares(about.largest, _count)]
    total = sum(share.amount for share in about.time)
    lines += [
        "",
        f"where the time is ({about.runtime}, CPU, {total:.3g} ms)",
        *_shares(about.time[:8], lambda ms: f"{ms:.3g} ms"),
    ]
    lines += ["", "targets, tried in fp32"]
    width = max((len(target.target) for target in advice.targets), default=0)
    for target in advice.targets:
        lines += _target(target, width)
    lines += ["", "recommended, from the best down (expected unless measured)"]
    rows = [_row(number, one) for number, one in enumerate(advice.recommendations[:SHOWN], 1)]
    widths = [max(len(row[0][i]) for row in rows) for i in range(5)] if rows else []
    for cells, more in rows:
        lines.append(
            "  " + "  ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)).rstrip()
        )
        lines += [f"      {log_line(each)}" for each in more]
    if not rows:
        lines.append("  nothing: no target runs this model right")
    if len(advice.recommendations) > SHOWN:
        lines.append(f"  … and {len(advice.recommendations) - SHOWN} more (--json shows all)")
    return "\n".join(lines)


def _target(target: Compatibility, width: int) -> list[str]:
    said = {"passed": "yes", "unverified": "not known", "error": "no", "failed": "no"}[
        target.status
    ]
    facts = [_size(target.size_bytes)] if target.size_bytes else []
    facts += [f"cosine {target.cosine:.7g}"] if target.cosine is not None else []
    facts += [f"{target.p50_ms:.3g} ms"] if target.p50_ms is not None else []
    head = f"  {target.target:<{width}}  {said:<3}  {', '.join(facts)}".rstrip()
    return [
        head,
        *(f"  {'':<{width}}       {log_line(text)}" for text in (*target.reasons, *target.remarks)),
    ]


def _row(number: int, one: Recommendation) -> tuple[tuple[str, ...], list[str]]:
    quality = f"cosine {one.cosine:.4f}" if one.cosine is not None else "cosine not known"
    speed = f"{one.p50_ms:.3g} ms" if one.p50_ms is not None else ""
    tried = "measured" if one.measured else "expected"
    head = (
        f"{number:>2}",
        f"{one.target}:{one.precision}",
        f"{_size(one.size_bytes)} ({one.share:.0%})",
        quality,
    )
    return (*head, f"{speed} {tried}".strip()), [
        *(f"but {miss}" for miss in one.misses),
        *one.remarks,
    ]


def _shares(shares: Sequence[Share], show: Callable[[float], str]) -> list[str]:
    return [
        f"  {share.share:>6.1%}  {show(share.amount):>9}  {log_line(share.name)}"
        for share in shares
    ]


def _count(number: float) -> str:
    return f"{number / 1e6:.2f} M" if number >= 1e5 else f"{number:,.0f}"


def _size(number: int | None) -> str:
    return f"{number / 1e6:.2f} MB" if number and number >= 1e5 else f"{(number or 0) / 1e3:.1f} kB"

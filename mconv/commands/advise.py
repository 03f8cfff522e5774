"""What a model is made of, where it runs, and what to deliver: tried, and ranked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from mconv import api
from mconv.api import Advice, Architecture, Compatibility, Recommendation, Share
from mconv.commands import _engine, convert
from mconv.errors import log_line
from mconv.values import to_json

HELP = "say what to convert a model to, and why"
SHOWN = 12  # recommendations
SHOWN_OPERATORS = 8
ANSWERS = {"passed": "yes", "unverified": "not known", "error": "no", "failed": "no"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
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
    default = api.ADVISED_COSINE
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
        type=_engine.parse_positive,
        help="convert, verify and measure the first N recommendations",
    )
    _engine.add_engine_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    advice = api.advise(
        args.source,
        **convert.read_source_arguments(args),
        targets=args.target,
        tolerance=args.tolerance,
        max_size=args.max_size,
        max_latency=args.max_latency,
        tries=args.tries,
        progress=api.progress_reporter(),
        **_engine.read_engine_settings(args),
    )
    if args.json:
        sys.stdout.write(to_json(advice))
    else:
        print(render(advice))
    return 0


def render(advice: Advice) -> str:
    """Return a text for a terminal: what the model is made of, the targets, the ranking."""
    return "\n".join(
        [
            *_describe_model(advice),
            "",
            *_describe_architecture(advice.architecture),
            "",
            *_describe_targets(advice.targets),
            "",
            *_describe_recommendations(advice.recommendations),
        ]
    )


def _describe_model(advice: Advice) -> list[str]:
    """Return the lines on the model as a whole and on its inputs."""
    architecture = advice.architecture
    info = architecture.info
    exporter = f", exported by {advice.exporter}" if advice.exporter else ""
    lines = [
        f"{log_line(advice.model)} ({advice.format}): {_format_count(info.parameters or 0)} "
        f"parameters, {_engine.format_size(architecture.size_bytes)} as ONNX fp32, "
        f"{info.nodes} nodes, opset {info.opset}{exporter}"
    ]
    for spec in info.inputs:
        shape = ", ".join(map(str, spec.shape))
        lines.append(f"  input {log_line(spec.name)}: {spec.dtype} [{shape}]")
    if architecture.dynamic:
        lines.append(f"  free axes: {', '.join(map(log_line, architecture.dynamic))}")
    return lines


def _describe_architecture(architecture: Architecture) -> list[str]:
    """Return the lines on where parameters and time are."""
    total_ms = sum(share.amount for share in architecture.time)
    return [
        "where the parameters are",
        *_describe_shares(architecture.roles, _format_count),
        "",
        "the largest weights",
        *_describe_shares(architecture.largest, _format_count),
        "",
        f"where the time is ({architecture.runtime}, CPU, {total_ms:.3g} ms)",
        *_describe_shares(architecture.time[:SHOWN_OPERATORS], lambda ms: f"{ms:.3g} ms"),
    ]


def _describe_targets(targets: Sequence[Compatibility]) -> list[str]:
    """Return the lines on how each target fared in fp32."""
    lines = ["targets, tried in fp32"]
    width = max((len(target.target) for target in targets), default=0)
    for target in targets:
        facts: list[str] = []
        if target.size_bytes:
            facts.append(_engine.format_size(target.size_bytes))
        if target.cosine is not None:
            facts.append(f"cosine {target.cosine:.7g}")
        if target.p50_ms is not None:
            facts.append(f"{target.p50_ms:.3g} ms")
        answer = ANSWERS[target.status]
        lines.append(f"  {target.target:<{width}}  {answer:<3}  {', '.join(facts)}".rstrip())
        for sentence in (*target.reasons, *target.remarks):
            lines.append(f"  {'':<{width}}       {log_line(sentence)}")
    return lines


def _describe_recommendations(recommendations: Sequence[Recommendation]) -> list[str]:
    """Return the lines of the ranking, each with what speaks against it and remarks below."""
    lines = ["recommended, from the best down (expected unless measured)"]
    if not recommendations:
        return [*lines, "  nothing: no target runs this model right"]
    shown = recommendations[:SHOWN]
    rows = [_make_cells(number, one) for number, one in enumerate(shown, 1)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for one, cells in zip(shown, rows, strict=True):
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append(f"  {'  '.join(padded)}".rstrip())
        for sentence in (*(f"but {miss}" for miss in one.misses), *one.remarks):
            lines.append(f"      {log_line(sentence)}")
    if len(recommendations) > SHOWN:
        lines.append(f"  … and {len(recommendations) - SHOWN} more (--json shows all)")
    return lines


def _make_cells(number: int, one: Recommendation) -> tuple[str, ...]:
    """Return the cells of one row of the ranking."""
    speed = f"{one.p50_ms:.3g} ms" if one.p50_ms is not None else ""
    tried = "measured" if one.measured else "expected"
    return (
        f"{number:>2}",
        f"{one.target}:{one.precision}",
        f"{_engine.format_size(one.size_bytes)} ({one.share:.0%})",
        f"cosine {one.cosine:.4f}" if one.cosine is not None else "cosine not known",
        f"{speed} {tried}".strip(),
    )


def _describe_shares(shares: Sequence[Share], show: Callable[[float], str]) -> list[str]:
    """Return a line a share: of the whole, its amount as ``show`` writes it, and its name."""
    return [
        f"  {share.share:>6.1%}  {show(share.amount):>9}  {log_line(share.name)}"
        for share in shares
    ]


def _format_count(number: float) -> str:
    """Return a number of parameters for people: millions from 0.1 M on."""
    return f"{number / 1e6:.2f} M" if number >= 1e5 else f"{number:,.0f}"

"""What a model is made of, where it runs, and what to deliver: tried, and ranked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from mconv import api
from mconv.api import Advice, Compatibility, Recommendation, Share
from mconv.commands import _engine, convert
from mconv.errors import log_line
from mconv.values import to_json

HELP = "say what to convert a model to, and why"
SHOWN = 12


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
        type=_engine.positive,
        help="convert, verify and measure the first N recommendations",
    )
    _engine.add_engine_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    advice = api.advise(
        args.source,
        **convert.source_of(args),
        targets=args.target,
        tolerance=args.tolerance,
        max_size=args.max_size,
        max_latency=args.max_latency,
        tries=args.tries,
        progress=api.progress_reporter(),
        **_engine.settings(args),
    )
    if args.json:
        sys.stdout.write(to_json(advice))
    else:
        print(render(advice))
    return 0


def render(advice: Advice) -> str:
    """For a terminal: the parts, the targets, the ranking."""
    architecture = advice.architecture
    parameters = architecture.info.parameters or 0
    lines = [
        f"{log_line(advice.model)} ({advice.format}): {_count(parameters)} parameters, "
        f"{_size(architecture.size_bytes)} as ONNX fp32, "
        f"{architecture.info.nodes} nodes, opset {architecture.info.opset}"
        + (f", exported by {advice.exporter}" if advice.exporter else "")
    ]
    for spec in architecture.info.inputs:
        lines.append(
            f"  input {log_line(spec.name)}: {spec.dtype} [{', '.join(map(str, spec.shape))}]"
        )
    if architecture.dynamic:
        lines.append(f"  free axes: {', '.join(map(log_line, architecture.dynamic))}")
    lines += ["", "where the parameters are", *_shares(architecture.roles, _count)]
    lines += ["", "the largest weights", *_shares(architecture.largest, _count)]
    total = sum(share.amount for share in architecture.time)
    lines += [
        "",
        f"where the time is ({architecture.runtime}, CPU, {total:.3g} ms)",
        *_shares(architecture.time[:8], lambda ms: f"{ms:.3g} ms"),
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
    answer = {"passed": "yes", "unverified": "not known", "error": "no", "failed": "no"}[
        target.status
    ]
    facts = [_size(target.size_bytes)] if target.size_bytes else []
    facts += [f"cosine {target.cosine:.7g}"] if target.cosine is not None else []
    facts += [f"{target.p50_ms:.3g} ms"] if target.p50_ms is not None else []
    head = f"  {target.target:<{width}}  {answer:<3}  {', '.join(facts)}".rstrip()
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

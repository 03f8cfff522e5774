"""Models of several parts (encoder, decoder, decoder with past …): one entry of a manifest, one
step of each kind, a folder a part.

A step of such a model is run once a part, on the part's subfolders, and what the parts answered
becomes one answer here: names of tensors and layers get ``part/`` before them, sizes and counts add
up, evidence of where nodes ran counts only where every part has some. A model of one part has no
subfolder, and none of this touches it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mconv.values import ExportInfo, Latency, ModelInfo, Placement, TensorSpec

Answers = Mapping[str, Mapping[str, Any]]  # part → what its step answered
# details that add up; of the others, those that all parts share are kept
SUMMED = ("download_bytes", "load_ms", "first_run_ms")


def params_of(params: Mapping[str, Any], part: str, *, alone: bool) -> dict[str, Any]:
    """A step's parameters for one part; packages of a model of several get the part's name behind
    the model's."""
    found = {key: value for key, value in params.items() if key != "parts"}
    if "source" in found:
        found["source"] = {**found["source"], "part": part}
    if "name" in found and not alone:
        found["name"] = f"{found['name']}-{part.replace('_', '-')}"
    return found


def folders_of(folders: Mapping[str, Path], part: str) -> dict[str, Path]:
    return {role: folder / part for role, folder in folders.items()}


def merge(kind: str, answers: Answers) -> dict[str, Any]:
    """One answer of a step of ``kind`` from those of its parts."""
    merged: dict[str, Any] = {}
    if any("notes" in a for a in answers.values()):
        merged["notes"] = _labelled(answers, "notes")
    if kind == "export":
        merged["export"] = msgspec.to_builtins(
            _export({p: msgspec.convert(a["export"], ExportInfo) for p, a in answers.items()})
        )
    elif kind in ("reference", "write"):
        infos = {p: msgspec.convert(a["info"], ModelInfo) for p, a in answers.items()}
        merged["info"] = msgspec.to_builtins(_info(infos, shared=kind == "reference"))
        if kind == "reference":
            merged["count"] = min(a["count"] for a in answers.values())
            merged["expected"] = [
                f"{p}/{name}" for p, a in answers.items() for name in a["expected"]
            ]
    elif kind == "calibrate":
        merged["count"] = min(a["count"] for a in answers.values())
    elif kind == "quantize":
        merged["layers"] = _named(answers, "layers")
    elif kind == "verify":
        merged |= _verification(answers)
    elif kind == "measure":
        merged |= _benchmark(answers)
    return merged


def _labelled(answers: Answers, key: str) -> list[str]:
    """Remarks by part; what every part says stands once, without a name."""
    lists = {part: list(a.get(key, ())) for part, a in answers.items()}
    first = next(iter(lists.values()))
    shared = [text for text in first if all(text in texts for texts in lists.values())]
    return shared + [
        f"{part}: {text}" for part, texts in lists.items() for text in texts if text not in shared
    ]


def _named(answers: Answers, key: str) -> list[dict[str, Any]]:
    return [
        {**item, "name": f"{part}/{item['name']}"}
        for part, a in answers.items()
        for item in a.get(key, ())
    ]


def _specs(infos: Mapping[str, ModelInfo], which: str) -> tuple[TensorSpec, ...]:
    return tuple(
        msgspec.structs.replace(spec, name=f"{part}/{spec.name}")
        for part, info in infos.items()
        for spec in getattr(info, which)
    )


def _info(infos: Mapping[str, ModelInfo], *, shared: bool) -> ModelInfo:
    """``shared``: the parts are views of one model in memory, whose parameters count once; files
    hold what each of them holds."""
    known = [i.parameters for i in infos.values() if i.parameters is not None]
    nodes = [i.nodes for i in infos.values() if i.nodes is not None]
    opsets = [i.opset for i in infos.values() if i.opset is not None]
    operators: dict[str, int] = {}
    for info in infos.values():
        for name, count in info.operators.items():
            operators[name] = operators.get(name, 0) + count
    return ModelInfo(
        inputs=_specs(infos, "inputs"),
        outputs=_specs(infos, "outputs"),
        parameters=(max(known) if shared else sum(known)) if known else None,
        nodes=sum(nodes) if nodes else None,
        operators=dict(sorted(operators.items())),
        opset=max(opsets) if opsets else None,
    )


def _export(infos: Mapping[str, ExportInfo]) -> ExportInfo:
    used: dict[str, list[str]] = {}
    for part, info in infos.items():
        used.setdefault(info.exporter, []).append(part)
    raw = {part: {"attempts": i.attempts, "notes": i.notes} for part, i in infos.items()}
    return ExportInfo(
        exporter=next(iter(used))
        if len(used) == 1
        else "; ".join(f"{name} ({', '.join(p)})" for name, p in used.items()),
        model=_info({part: info.model for part, info in infos.items()}, shared=False),
        attempts=tuple(_labelled(raw, "attempts")),
        notes=tuple(_labelled(raw, "notes")),
    )


def _verification(answers: Answers) -> dict[str, Any]:
    first = next(iter(answers.values()))
    return {
        "runtime": first["runtime"],
        "placement": msgspec.to_builtins(
            _placement([msgspec.convert(a["placement"], Placement) for a in answers.values()])
        ),
        "samples": min(a["samples"] for a in answers.values()),
        "reference": "expected"
        if all(a["reference"] == "expected" for a in answers.values())
        else "source",
        "outputs": _named(answers, "outputs"),
        "details": _details({part: a["details"] for part, a in answers.items()}),
    }


def _placement(found: Sequence[Placement]) -> Placement:
    """Fail closed: a part without nodes or witnesses leaves the whole without."""
    elsewhere: dict[str, int] = {}
    allowed: dict[str, int] = {}
    for place in found:
        for total, counts in ((elsewhere, place.elsewhere), (allowed, place.allowed)):
            for name, count in counts.items():
                total[name] = total.get(name, 0) + count
    nodes = [p.nodes for p in found if p.nodes is not None]
    seen = all(p.witnesses for p in found)
    return msgspec.structs.replace(
        found[0],
        nodes=None if len(nodes) < len(found) else 0 if 0 in nodes else sum(nodes),
        elsewhere=elsewhere,
        allowed=allowed,
        software=any(p.software for p in found),
        witnesses=tuple(dict.fromkeys(w for p in found for w in p.witnesses)) if seen else (),
    )


def _details(found: Answers) -> dict[str, Any]:
    first = next(iter(found.values()))
    merged = {
        key: value
        for key, value in first.items()
        if all(d.get(key) == value for d in found.values())
    }
    for key in SUMMED:
        numbers = [d[key] for d in found.values() if isinstance(d.get(key), int | float)]
        if len(numbers) == len(found):
            merged[key] = sum(numbers)
    return {**merged, "parts": {part: dict(details) for part, details in found.items()}}


def _benchmark(answers: Answers) -> dict[str, Any]:
    """One call of every part in turn: times add up, memory is that of the largest."""
    first = next(iter(answers.values()))
    ran = {part: msgspec.convert(a["latency"], Latency) for part, a in answers.items()}
    total = _sum(list(ran.values()))
    source = _sum([msgspec.convert(a["reference"], Latency) for a in answers.values()])
    peaks = [a["peak_rss_bytes"] for a in answers.values() if a["peak_rss_bytes"] is not None]
    others = [
        name for name in first["others"] if all(name in a["others"] for a in answers.values())
    ]
    return {
        **first,
        "latency": msgspec.to_builtins(total),
        "load_ms": sum(a["load_ms"] for a in answers.values()),
        "first_run_ms": sum(a["first_run_ms"] for a in answers.values()),
        "peak_rss_bytes": max(peaks) if peaks else None,
        "reference": msgspec.to_builtins(source),
        "speedup": source.p50_ms / total.p50_ms,
        "comparable": all(a["comparable"] for a in answers.values()),
        "others": {
            name: msgspec.to_builtins(
                _sum([msgspec.convert(a["others"][name], Latency) for a in answers.values()])
            )
            for name in others
        },
        "shapes": {
            f"{part}/{name}": shape
            for part, a in answers.items()
            for name, shape in a["shapes"].items()
        },
        "parts": msgspec.to_builtins(ran),
    }


def _sum(found: Sequence[Latency]) -> Latency:
    return Latency(
        p50_ms=sum(one.p50_ms for one in found),
        p90_ms=sum(one.p90_ms for one in found),
        min_ms=sum(one.min_ms for one in found),
        runs=min(one.runs for one in found),
    )

"""Check an artifact's files against their digests, then its answers against the source model's."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from mconv import hardware, registry, results
from mconv import plan as planning
from mconv.commands import _engine, convert
from mconv.digests import sha256
from mconv.errors import StepError, UsageError
from mconv.execute import Executor
from mconv.progress import plain, reporter
from mconv.store import Entry, Store
from mconv.values import to_json
from mconv.worker import Request, run_step

HELP = "check an artifact against its source"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", metavar="ARTIFACT", type=Path, help="a folder that mconv wrote (with mconv.json)")
    parser.add_argument("--against", metavar="SOURCE", type=Path, help="the source model (default: the path in mconv.json)")
    parser.add_argument("--samples", metavar="FILE", help="reference inputs (.npz) instead of plausible ones")
    parser.add_argument("--store", metavar="DIR|URL", help="default: $MCONV_STORE or .mconv/store")
    parser.add_argument("--json", action="store_true", help="print the verification on stdout")


def run(args: argparse.Namespace) -> int:
    provenance = read_provenance(args.artifact)
    problems = check_files(args.artifact, provenance)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        return 1
    manifest = convert.manifest_of(arguments(args, provenance))
    plan = planning.make(manifest, measure=False)
    variant = plan.variants[0]
    if "verify" not in variant.steps:
        raise UsageError(f"no runtime here can run target {variant.config.target}")
    store = _engine.open_store(args.store)
    outcome = Executor(plan, store, reporter()).run({variant.steps["reference"]: True})
    if outcome.errors:
        error = next(iter(outcome.errors.values()))
        raise StepError(f"the source cannot be run: {error.message}", hint=error.hint)
    entry = verify(store, plan.steps[variant.steps["verify"]], args.artifact.resolve(), store.files(variant.steps["reference"]))
    found, _ = results.verification(entry, variant.config)
    if args.json:
        sys.stdout.write(to_json(found))
    for output in found.outputs:
        print(f"{plain(output.name)}: cosine {output.cosine}, max abs {output.max_abs}, SQNR {output.sqnr_db} dB", file=sys.stderr)
    for reason in found.reasons:
        print(plain(reason), file=sys.stderr)
    print(found.verdict, file=sys.stderr)
    return 0 if found.verdict == "passed" else 1


def read_provenance(folder: Path) -> dict[str, Any]:
    """``mconv.json`` of an artifact. Raises UsageError."""
    path = folder / results.PROVENANCE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not {"target", "precision", "source", "files"} <= found.keys():
            raise ValueError("it lacks its main keys")
    except (OSError, ValueError) as problem:
        raise UsageError(
            f"{folder} has no readable {results.PROVENANCE}: {problem}", hint="name a folder that `mconv run` wrote"
        ) from problem
    return found


def check_files(folder: Path, provenance: dict[str, Any]) -> list[str]:
    """One sentence for each file that is missing, or not what was written."""
    problems = []
    for record in provenance["files"]:
        path = (folder / record["path"]).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            problems.append(f"{record['path']} is missing")
        elif path.stat().st_size != record["bytes"] or sha256(path) != record["sha256"]:
            problems.append(f"{record['path']} is not the file that was written: its SHA-256 differs")
    return problems


def arguments(args: argparse.Namespace, provenance: dict[str, Any]) -> argparse.Namespace:
    """What `mconv convert` would be called with to make this artifact again."""
    source = provenance["source"]
    against = args.against or Path(source["path"])
    if not against.exists():
        raise UsageError(f"the source {source['path']!r} is not here", hint="name it with --against")
    if provenance["target"] not in registry.targets():
        raise UsageError(
            f"the target {provenance['target']!r} is not known to this mconv", hint="`mconv list` shows those that are"
        )
    inputs = [f"{spec['name']}:{spec['dtype']}:{','.join(map(str, spec['shape']))}" for spec in source.get("inputs", ())]
    return argparse.Namespace(
        source=str(against),
        to=[{provenance["target"]: {**(provenance.get("options") or {}), "precision": provenance["precision"]}}],
        format=source["format"],
        factory=source["options"].get("factory"),
        task=source["options"].get("task"),
        option=[f"{k}={json.dumps(v)}" for k, v in source["options"].items() if k not in ("factory", "task")],
        input=inputs,
        samples=args.samples,
        optimize="none",
    )


def verify(store: Store, step: planning.Step, artifact: Path, reference: Path) -> Entry:
    """Run the verify step on a folder that is not in the store. Raises StepError with the worker's reason."""
    workspace = store.workspace()
    try:
        folders = {"artifact": str(artifact), "reference": str(reference)}
        request = Request(kind=step.kind, plugin=step.plugin, params=step.params, folders=folders, out=str(workspace / "out"))
        done = run_step(
            request,
            workspace,
            root=str(artifact),
            threads=hardware.cores(),
            timeout_s=step.timeout_s,
            memory_bytes=step.memory_bytes,
            stop=threading.Event(),
        )
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    if done.error is not None or done.result is None:
        reason = done.error.message if done.error else "it gave no answer"
        raise StepError(f"the artifact cannot be run: {reason}", hint=done.error.hint if done.error else None)
    return Entry(key=step.key, kind=step.kind, label=step.label, result=done.result)

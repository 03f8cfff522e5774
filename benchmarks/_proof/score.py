"""Runs mconv's own steps on the models, puts faults into what they delivered, and counts which of
them the proof sees.

Only what every run goes through is called: the engine's run of a models.yml, the verification step
with the request that the planner made, and the verdict on its answer."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnx

from mconv import registry, samples
from mconv.engine.run import FinishedRun, run_manifest
from mconv.errors import one_line
from mconv.manifest import config as manifest_config
from mconv.manifest import reader
from mconv.planning.step_graph import VariantPlan
from mconv.results.variant import build_variant
from mconv.steps.requests import AnyRequest, VerifyRequest
from mconv.steps.run import run_step
from mconv.values import VariantResult

from . import models, truth
from .faults import FAULTS, Fault, Seen, list_places
from .graphs import Graph, infer_shapes, open_session
from .models import Subject

MODEL_FILE = "model.onnx"
PER_CELL = 2  # mutants of one kind in one model
TRIES = 8  # places that are looked at for them
KEEP = ("export", "reference", "write")  # steps whose files are wanted


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that counts.

    Attributes:
        model: The model's name.
        precision: The artifact's.
        fault: The kind of fault.
        place: Where in the graph it is.
        caught: The proof did not pass it.
        status: The verdict.
        reasons: What the verdict says.
        regimes: Of each regime of the true domain, the share of rows that are off.
    """

    model: str
    precision: str
    fault: str
    place: str
    caught: bool
    status: str
    reasons: tuple[str, ...] = ()
    regimes: dict[str, float] = {}


class Unharmed(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact without any fault put into it.

    Attributes:
        model: The model's name.
        precision: The artifact's.
        status: The verdict.
        reasons: What the verdict says.
        right: The dense search finds less than one row in a hundred off by the tolerance.
        wrong: It finds one row in a hundred off by ten times the tolerance.
        rows: Rows of the dense search.
        regimes: Of each regime, the share of rows that are off by ten times the tolerance.
        seconds: What the model's mutants took.
    """

    model: str
    precision: str
    status: str
    reasons: tuple[str, ...] = ()
    right: bool = False
    wrong: bool = False
    rows: int = 0
    regimes: dict[str, float] = {}
    seconds: float = 0.0


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one model."""

    unharmed: tuple[Unharmed, ...]
    mutants: tuple[Mutant, ...]


class _Artifact(NamedTuple):
    """One variant of a finished run, ready to be verified again with another graph.

    Attributes:
        run: The run.
        variant: The variant's plan.
        folder: Its files.
    """

    run: FinishedRun
    variant: VariantPlan
    folder: Path

    def judge(self, model: Path) -> tuple[str, tuple[str, ...]]:
        """Return the verdict on the graph ``model`` as this variant's artifact, and its reasons."""
        key = self.variant.steps["verify"]
        step = self.run.plan.steps[key]
        with tempfile.TemporaryDirectory(prefix="mconv-proof-") as scratch:
            artifact, out = Path(scratch, "artifact"), Path(scratch, "out")
            out.mkdir()
            shutil.copytree(
                self.folder, artifact, ignore=lambda _, names: {MODEL_FILE} & set(names)
            )
            shutil.copyfile(model, artifact / MODEL_FILE)
            folders = {
                role: artifact if role == "artifact" else self.run.store.files(before)
                for role, before in step.inputs.items()
            }
            try:
                answer = run_step(_on_one_core(step.request), folders, out)
            except Exception as problem:  # as a worker would answer
                return "error", (one_line(problem),)
        outcome = self.run.outcome
        entry = msgspec.structs.replace(outcome.entries[key], answer=answer)
        entries = {**outcome.entries, key: entry}
        changed = msgspec.structs.replace(outcome, entries=entries)
        result = build_variant(self.run.plan, changed, self.variant, measured=False)
        return result.status, result.reasons


def _on_one_core(request: AnyRequest) -> AnyRequest:
    """Return a verification that takes one core, since as many models are under way at once."""
    if not isinstance(request, VerifyRequest):
        return request
    artifact = msgspec.structs.replace(request.artifact, threads=1)
    return msgspec.structs.replace(request, artifact=artifact)


def convert(folder: Path, jobs: int | None) -> FinishedRun:
    """Do what `mconv run --no-measure` does with the models.yml in ``folder``."""
    manifest = reader.load(folder / "models.yml")
    store = str(folder / "store")
    return run_manifest(manifest, None, store=store, jobs=jobs, measure=False, keep=KEEP)


def score_model(folder: str, name: str, kinds: Sequence[str]) -> Part:
    """Put faults into the artifacts of one model, whose run is in the store, and judge each."""
    subject = models.find_subject(name)
    manifest = manifest_config.select(reader.load(Path(folder) / "models.yml"), [name])
    store = str(Path(folder) / "store")
    run = run_manifest(manifest, None, store=store, measure=False, keep=KEEP)
    source = run.plan.manifest.models[0].source
    known: truth.Truth | None = None
    unharmed: list[Unharmed] = []
    mutants: list[Mutant] = []
    for variant, result in zip(run.plan.variants, run.report.variants, strict=True):
        precision = variant.config.precision
        begin = time.monotonic()
        if result.status == "error":
            said = (result.error.message,) if result.error is not None else ()
            unharmed.append(Unharmed(model=name, precision=precision, status="error", reasons=said))
            continue
        if known is None:
            model = registry.sources()[source.format].load(source)
            inputs = {spec.name for spec in model.inputs}
            calls = [_fit(call, inputs) for call in subject.draw(seed_generator(name))]
            known = truth.learn(calls, model.run)
        artifact = _Artifact(run, variant, run.store.files(variant.steps["write"]))
        _check_judge(artifact, result)
        own, found = _score_variant(artifact, known, subject, kinds)
        seconds = round(time.monotonic() - begin, 1)
        unharmed.append(
            msgspec.structs.replace(
                own, status=result.status, reasons=result.reasons, seconds=seconds
            )
        )
        mutants += found
    return Part(unharmed=tuple(unharmed), mutants=tuple(mutants))


def _check_judge(artifact: _Artifact, result: VariantResult) -> None:
    """Raise RuntimeError where a mutant would be judged by another rule than the run's: what fails
    for a reason of this benchmark must not count as caught."""
    status, reasons = artifact.judge(artifact.folder / MODEL_FILE)
    if status != result.status:
        raise RuntimeError(
            f"{result.id} is {result.status} in a run and {status} here: {'; '.join(reasons)}"
        )


def _fit(call: models.Call, inputs: set[str]) -> models.Call:
    """Leave out of a call what the model does not take."""
    feed = {name: array for name, array in call.feed.items() if name in inputs}
    if missing := inputs - feed.keys():
        raise RuntimeError(f"the domain has no input {', '.join(sorted(missing))}")
    return models.Call(call.regime, feed)


def seed_generator(*names: str) -> np.random.Generator:
    """Return numbers that hang on ``names`` alone."""
    return np.random.default_rng([models.SEED, zlib.crc32("/".join(names).encode())])


def _score_variant(
    artifact: _Artifact, known: truth.Truth, subject: Subject, kinds: Sequence[str]
) -> tuple[Unharmed, list[Mutant]]:
    """Hold an artifact to the truth as it is, then with faults of each of ``kinds``."""
    precision = artifact.variant.config.precision
    allowed = truth.ALLOWED[precision]
    graph = artifact.folder / MODEL_FILE
    run = _runner(graph)
    shapes = {spec.name: spec.shape for spec in open_session(graph).get_inputs()}
    known = truth.narrow(known, shapes)
    if not known.calls:
        raise RuntimeError(f"{subject.name}: the artifact takes no size of the domain: {shapes}")
    base = truth.search(known, run, allowed)
    strict = truth.search(known, run, allowed, times=1.0)
    unharmed = Unharmed(
        model=subject.name,
        precision=precision,
        status="unverified",
        right=not truth.is_fault(strict),
        wrong=truth.is_fault(base),
        rows=base.rows,
        regimes=_shares(base),
    )
    proto = infer_shapes(onnx.load(str(graph)))
    seen = Seen(proto, _first_feed(artifact, known), _typical(known), _centres(known))
    mutants: list[Mutant] = []
    for fault in FAULTS:
        if not kinds or fault.name in kinds:
            counted = _judge_kind(artifact, known, base, fault, seen)
            mutants += itertools.islice(counted, PER_CELL)
    return unharmed, mutants


def _judge_kind(
    artifact: _Artifact, known: truth.Truth, base: truth.Search, fault: Fault, seen: Seen
) -> Iterator[Mutant]:
    """Yield the mutants of one kind that count, with the verdict on each. Rows that are off in
    ``base``, the search without a fault, do not count."""
    model, precision = artifact.variant.model, artifact.variant.config.precision
    allowed = truth.ALLOWED[precision]
    least = max(1.0, truth.SHARE * base.rows)
    for place, path in _mutants(fault, seen, model):
        mutated = _open(path)
        if mutated is None:
            continue
        search = truth.search(known, mutated, allowed, stop=True, known=base.marks)
        if not search.ran or search.off < least:
            continue
        status, reasons = artifact.judge(path)
        caught = status != "passed"
        if not caught:  # to tell where it shows
            search = truth.search(known, mutated, allowed, known=base.marks)
        yield Mutant(
            model=model,
            precision=precision,
            fault=fault.name,
            place=place,
            caught=caught,
            status=status,
            reasons=reasons,
            regimes={} if caught else _shares(search),
        )


def _mutants(fault: Fault, seen: Seen, name: str) -> Iterator[tuple[str, Path]]:
    """Yield graphs with the fault at one place each, in an order of its own."""
    count = len(list_places(fault, Graph(seen.proto), seen))
    with tempfile.TemporaryDirectory(prefix="mconv-proof-") as scratch:
        path = Path(scratch, MODEL_FILE)
        for index in seed_generator(name, fault.name).permutation(count)[:TRIES]:
            graph = Graph(seen.proto)
            place = list_places(fault, graph, seen)[index]
            try:
                place.edit()
                graph.save(path)
            except Exception as problem:  # a graph that the edit does not fit
                print(f"{name}, {fault.name}, {place.name}: {one_line(problem)}", file=sys.stderr)
                continue
            yield place.name, path


def _runner(path: Path) -> truth.Run:
    session = open_session(path)
    names = [output.name for output in session.get_outputs()]

    def run(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        arrays = session.run(names, dict(feed))
        return {name: np.asarray(array) for name, array in zip(names, arrays, strict=True)}

    return run


def _open(path: Path) -> truth.Run | None:
    """Return what runs a mutant; None where the engine refuses it."""
    try:
        return _runner(path)
    except Exception:  # onnxruntime's exceptions share no public base class
        return None


def _first_feed(artifact: _Artifact, known: truth.Truth) -> Mapping[str, np.ndarray]:
    """Return the first feed of the proof, or, where it keeps them in another form, of the
    domain."""
    key = artifact.variant.steps["reference"]
    with contextlib.suppress(Exception):
        return samples.load_feeds(artifact.run.store.files(key) / samples.FILE)[0]
    return known.calls[0].feed


def _typical(known: truth.Truth) -> dict[str, float]:
    """Return the median of each input of numbers over the first calls of the domain."""
    typical = {}
    for name, array in known.calls[0].feed.items():
        if array.dtype.kind in "fiub":
            flat = [call.feed[name].ravel() for call in known.calls[:8]]
            middle = float(np.median(np.concatenate(flat).astype(np.float64)))
            typical[name] = middle if array.dtype.kind == "f" else float(int(middle))
    return typical


def _centres(known: truth.Truth) -> dict[str, np.ndarray]:
    """Return the mean of each floating output along its last axis, a number where that varies."""
    centres = {}
    for name in known.scales:
        arrays = [answer[name].astype(np.float64) for answer in known.answers]
        widths = {array.shape[-1] if array.ndim > 1 else 1 for array in arrays}
        if len(widths) == 1 and arrays[0].ndim > 1:
            rows = np.concatenate([array.reshape(-1, array.shape[-1]) for array in arrays])
        else:
            rows = np.concatenate([array.reshape(-1, 1) for array in arrays])
        finite = np.where(np.isfinite(rows), rows, 0.0)
        centres[name] = finite.mean(0) if rows.shape[1] > 1 else np.asarray(finite.mean())
    return centres


def _shares(search: truth.Search) -> dict[str, float]:
    return {regime: round(share, 3) for regime, share in search.by_regime.items() if share}


def send_output_to(log: str) -> None:
    """Have this process print into a file from now on, its libraries in C included."""
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


@contextlib.contextmanager
def hide_output(log: Path) -> Iterator[None]:
    """Send what frameworks print to a file for a while."""
    before = os.dup(1), os.dup(2)
    send_output_to(str(log))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, kept in enumerate(before, 1):
            os.dup2(kept, number)
            os.close(kept)


def score(folder: Path, names: Sequence[str], kinds: Sequence[str], jobs: int) -> dict[str, Part]:
    """Score the models, each in one of ``jobs`` processes; returns what came of each by name."""
    results: dict[str, Part] = {}
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started now
    log = str(folder / "log.txt")
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=send_output_to, initargs=(log,)
    ) as pool:
        futures = {
            name: pool.submit(score_model, str(folder), name, tuple(kinds)) for name in names
        }
        for name, future in futures.items():
            try:
                results[name] = future.result()
            except Exception as problem:
                pool.shutdown(wait=False, cancel_futures=True)
                raise RuntimeError(f"{name} cannot be scored: {problem}") from problem
            part = results[name]
            missed = sum(not m.caught for m in part.mutants)
            seconds = sum(u.seconds for u in part.unharmed)
            print(
                f"  {name:<18}{len(part.mutants) - missed:>4} of {len(part.mutants):>3} caught"
                f"{seconds:>8.1f} s",
                flush=True,
            )
    return results


# The report


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The score.

    Attributes:
        counted: Faults that count.
        caught: Those that the proof did not pass.
        alarms: Unharmed artifacts that are right, and that the proof fails.
        unverified: Unharmed artifacts that the proof does not vouch for; their mutants do not
            count.
        wrong_passed: Artifacts that are wrong as they were converted, and that the proof passes.
    """

    counted: int
    caught: int
    alarms: int
    unverified: int
    wrong_passed: int

    @property
    def percent(self) -> float:
        """The share of faults that are caught, in percent; 0 where none counts."""
        return 100.0 * self.caught / self.counted if self.counted else 0.0


def split_parts(parts: Mapping[str, Part]) -> tuple[list[Unharmed], list[Mutant]]:
    """Return all unharmed artifacts, and the mutants of those that the proof passes."""
    unharmed = [own for part in parts.values() for own in part.unharmed]
    proved = {(u.model, u.precision) for u in unharmed if u.status == "passed"}
    mutants = [m for part in parts.values() for m in part.mutants]
    return unharmed, [m for m in mutants if (m.model, m.precision) in proved]


def summarize(parts: Mapping[str, Part]) -> Figures:
    """Count faults, those caught, and false alarms."""
    unharmed, mutants = split_parts(parts)
    return Figures(
        counted=len(mutants),
        caught=sum(m.caught for m in mutants),
        alarms=sum(u.right and u.status == "failed" for u in unharmed),
        unverified=sum(u.status == "unverified" for u in unharmed),
        wrong_passed=sum(u.wrong and u.status == "passed" for u in unharmed),
    )


def render(parts: Mapping[str, Part]) -> str:
    """Return the table of kinds × models, the score, the survivors, and what is to be said of the
    unharmed artifacts."""
    unharmed, mutants = split_parts(parts)
    columns = [(u.model, u.precision) for u in unharmed]
    lines = ["", "+ all caught, x some missed, · none that counts, blank: no proof to fool", ""]
    for tens in (True, False):
        digits = [str(i // 10 or " ") if tens else str(i % 10) for i in range(1, len(columns) + 1)]
        lines.append(f"{'':<18}{''.join(digits)}  caught")
    for fault in FAULTS:
        own = [m for m in mutants if m.fault == fault.name]
        cells = ""
        for column, artifact in zip(columns, unharmed, strict=True):
            hits = [m.caught for m in own if (m.model, m.precision) == column]
            sign = "·" if not hits else "+" if all(hits) else "x"
            cells += sign if artifact.status == "passed" else " "
        lines.append(f"{fault.name:<18}{cells}  {sum(m.caught for m in own)} of {len(own)}")
    lines.append("")
    for index, own in enumerate(unharmed, 1):
        subject = models.find_subject(own.model)
        hits = [m.caught for m in mutants if (m.model, m.precision) == columns[index - 1]]
        lines.append(
            f"{index:>3} {own.model} {own.precision}: {sum(hits)} of {len(hits)}; {subject.source}"
        )
    lines += ["", *_render_remarks(unharmed, mutants)]
    return "\n".join(lines)


def _render_remarks(unharmed: Sequence[Unharmed], mutants: Sequence[Mutant]) -> Iterator[str]:
    survivors = [m for m in mutants if not m.caught]
    yield f"{len(survivors)} survivors, and where they show:"
    for mutant in survivors:
        yield (
            f"  {mutant.model} {mutant.precision}, {mutant.fault}, {mutant.place}: "
            f"{_explain(mutant.regimes)}"
        )
    for own in unharmed:
        name = f"  {own.model} {own.precision}"
        if own.status == "error":
            yield f"{name}: not converted: {one_line('; '.join(own.reasons))}"
        elif own.wrong:
            verdict = "passed" if own.status == "passed" else f"caught ({own.status})"
            yield f"{name}: wrong as converted, {verdict}: {_explain(own.regimes)}"
        elif own.status == "failed":
            word = "FALSE ALARM" if own.right else "failed, and between right and wrong"
            yield f"{name}: {word}: {one_line('; '.join(own.reasons))}"
        elif own.status != "passed":
            yield f"{name}: {own.status}: {one_line('; '.join(own.reasons))}"


def _explain(regimes: Mapping[str, float]) -> str:
    """Return in which regimes rows are off, the worst first."""
    if not regimes:
        return "nowhere"
    ordered = sorted(regimes.items(), key=lambda item: -item[1])
    return "off in " + ", ".join(f"{share:.0%} of {regime}" for regime, share in ordered)


def to_json(parts: Mapping[str, Part]) -> dict[str, Any]:
    """Return all figures for a file."""
    return {
        "score": msgspec.to_builtins(summarize(parts)),
        "models": {name: msgspec.to_builtins(part) for name, part in parts.items()},
    }

"""The files of OUT: artifacts with their provenance, and checksums."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import msgspec

import mconv
from mconv import plain_files
from mconv.errors import StoreError, UsageError
from mconv.manifest.config import Manifest
from mconv.planning.outcome import Outcome
from mconv.planning.step_graph import Plan, VariantPlan
from mconv.results import delivery
from mconv.results.delivery import Folder
from mconv.results.variant import name_directory
from mconv.results.verdict import summarize
from mconv.store.local import Entry, Store
from mconv.values import ErrorInfo, JsonObject, Report, VariantResult, to_json

PROVENANCE = "mconv.json"


class InputProvenance(TypedDict):
    """An input as the manifest declares it.

    Attributes:
        name: Its name.
        dtype: NumPy's name of its type.
        shape: Its dimensions: a size, or the name of a free axis.
    """

    name: str
    dtype: str
    shape: list[int | str]


class FileProvenance(TypedDict):
    """A file of an artifact.

    Attributes:
        path: Its path, relative to the artifact's folder.
        bytes: Its size.
        sha256: The SHA-256 of its content, in hex.
    """

    path: str
    bytes: int
    sha256: str


class SourceProvenance(TypedDict):
    """What an artifact was made from.

    Attributes:
        format: The name of the source plug-in.
        path: Where the source lies, relative to the manifest.
        digest: The digest of its files.
        options: Its options.
        inputs: The inputs that the manifest declares.
    """

    format: str
    path: str
    digest: str
    options: JsonObject
    inputs: list[InputProvenance]


class StepProvenance(TypedDict):
    """A step that made an artifact.

    Attributes:
        kind: The kind of step.
        name: The plug-in that did it.
        key: The digest of all that its result depends on.
        tools: Versions of the tools that it used.
        notes: Its remarks.
    """

    kind: str
    name: str
    key: str
    tools: dict[str, str]
    notes: tuple[str, ...]


class Provenance(TypedDict):
    """What an artifact came from: the content of its mconv.json.

    There are no times and no measurements in it, so that equal inputs give equal bytes.

    Attributes:
        mconv: The version of mconv.
        id: The variant's id.
        model: The model's name.
        target: The target's name.
        precision: The precision that was delivered.
        options: Options of the target and of the runtime.
        status: The verdict.
        source: What it was made from.
        steps: How it was made.
        files: Its files.
        info: :class:`mconv.values.ModelInfo` of the artifact, as JSON.
        outputs: :class:`mconv.values.OutputError` of every output, as JSON.
        tolerance: :class:`mconv.values.Tolerance` that it was held to, as JSON.
    """

    mconv: str
    id: str
    model: str
    target: str
    precision: str
    options: JsonObject
    status: str
    source: SourceProvenance
    steps: list[StepProvenance]
    files: list[FileProvenance]
    info: dict[str, object] | None
    outputs: list[dict[str, object]]
    tolerance: dict[str, object]


def check_writable(folder: Path) -> None:
    """Raise UsageError where ``folder`` cannot be made, or cannot be written into.

    It need not be there yet, and is not made.
    """
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise UsageError(f"{str(folder)!r} cannot be written: {place.name} is not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"{str(folder)!r} cannot be written: {place} belongs to somebody else")


def check_place(out: Path, manifest: Manifest, kept: Mapping[str, Path]) -> None:
    """Raise UsageError where OUT would lie in what is not mconv's to write into, or hold it.

    ``kept`` are folders in which mconv keeps other things, by what they are called.
    """
    real = Path(os.path.realpath(out))
    hint = "name a folder for it alone, such as out"
    if ".git" in (part.lower() for part in (*real.parts, *out.absolute().parts)):
        raise UsageError(f"{str(out)!r} cannot be OUT: it lies in a repository's .git", hint=hint)
    for what, folder in kept.items():
        if real.is_relative_to(os.path.realpath(folder)):
            raise UsageError(f"{str(out)!r} cannot be OUT: it lies in {what}", hint=hint)
    held = {"the folder of the manifest": manifest.root}
    for model in manifest.models:
        held[f"the model {model.name}"] = model.source.path
        held |= {f"the samples of {model.name}": path for path in model.samples}
    for what, path in held.items():
        if path and Path(os.path.realpath(path)).is_relative_to(real):
            raise UsageError(f"{str(out)!r} cannot be OUT: it holds {what}", hint=hint)


def write_artifacts(
    plan: Plan, report: Report, outcome: Outcome, store: Store, out: Folder
) -> Report:
    """Copy each variant's files to OUT, with their provenance beside them.

    Folders of variants that have no files now are removed, and what killed runs left half written.
    Returns the report, in which a variant whose files could not be delivered is an error without
    any.
    """
    with delivery.explain_unwritable(out.path):
        delivery.sweep(out)
    delivered = []
    for variant, result in zip(plan.variants, report.variants, strict=True):
        planned = next(
            (c for c in variant.candidates if c.config.precision == result.chosen), variant
        )
        place = name_directory(variant.config, variant.model)
        entry = outcome.entries.get(planned.steps["write"])
        try:
            with delivery.explain_unwritable(out.path / place):
                provenance = to_json(_provenance(plan, planned, result))
                _write_artifact(out, place, entry, provenance, store)
        except (StoreError, UsageError) as problem:
            error = ErrorInfo(
                type=type(problem).__name__,
                message=problem.message,
                hint=problem.hint,
                step="write",
                place=result.place,
            )
            result = msgspec.structs.replace(
                result, status="error", error=error, files=(), directory=None
            )
        delivered.append(result)
    if tuple(delivered) == report.variants:
        return report
    return msgspec.structs.replace(report, variants=tuple(delivered), summary=summarize(delivered))


def _write_artifact(
    out: Folder, place: str, entry: Entry | None, provenance: str, store: Store
) -> None:
    """Make ``place`` in OUT, MODEL/TARGET, hold the files of ``entry`` and their provenance.

    Raises StoreError where a link stands in its place.
    """
    model, name = place.split("/")
    if entry is None:
        _remove_earlier(out, model, name)
        return
    for file in entry.files:
        if plain_files.fold_name(file.path) == PROVENANCE:
            raise StoreError(f"the artifact holds a file {file.path}, where its provenance belongs")
    with delivery.open_below(out, model) as parent:
        files = store.files(entry.key)
        delivery.copy_files(files, entry.files, parent, name, store.digests, PROVENANCE)
        with delivery.open_below(parent, name) as folder:
            if delivery.read_file(folder, PROVENANCE) != provenance:
                delivery.write_file(folder, PROVENANCE, provenance)


def _remove_earlier(out: Folder, model: str, name: str) -> None:
    """Remove what an earlier run made: an old artifact must not pass for this run's.

    A folder without a provenance is not mconv's, and stays. Raises StoreError where a link stands
    in its place.
    """
    with (
        contextlib.suppress(FileNotFoundError),
        plain_files.open_folder(model, out.descriptor) as top,
        plain_files.open_folder(name, top) as inner,
    ):
        parent = Folder(out.path / model, top)
        if delivery.read_file(Folder(parent.path / name, inner), PROVENANCE) is not None:
            delivery.remove(parent, name)


def _provenance(plan: Plan, planned: VariantPlan, result: VariantResult) -> Provenance:
    """Return what the artifact of ``planned`` came from."""
    source = next(m.source for m in plan.manifest.models if m.name == planned.model)
    steps: list[StepProvenance] = []
    for step in result.steps:
        if step.kind != "measure":
            steps.append(
                {
                    "kind": step.kind,
                    "name": step.name,
                    "key": step.key,
                    "tools": step.tools,
                    "notes": step.notes,
                }
            )
    outputs = result.verification.outputs if result.verification else ()
    return {
        "mconv": mconv.__version__,
        "id": planned.id,
        "model": planned.model,
        "target": planned.config.target,
        "precision": planned.config.precision,
        "options": {**planned.config.options, **planned.config.runtime_options},
        "status": result.status,
        "source": {
            "format": source.format,
            "path": plan.models[planned.model].path,
            "digest": plan.models[planned.model].digest,
            "options": source.options,
            "inputs": msgspec.to_builtins(source.inputs),
        },
        "steps": steps,
        "files": msgspec.to_builtins(result.files),
        "info": msgspec.to_builtins(result.info),
        "outputs": msgspec.to_builtins(outputs),
        "tolerance": msgspec.to_builtins(planned.config.tolerance),
    }


def write_sums(out: Folder, report: Report) -> None:
    """Write SHA256SUMS, in the format of sha256sum(1), for every artifact file of this run."""
    lines = [f"{f.sha256}  {v.directory}/{f.path}\n" for v in report.variants for f in v.files]
    delivery.write_file(out, "SHA256SUMS", "".join(sorted(lines)))

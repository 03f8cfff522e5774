"""Models in a folder tree, and what any file is: by content first, by name only to say that the two
differ.

A format's plug-in (``mconv/formats``) recognises and reads a file; a source's (``mconv/sources``)
says whether mconv converts it and what it still needs. Nothing here loads a framework or runs code
of a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from mconv import registry
from mconv.discovery import architecture
from mconv.errors import MconvError, SourceError, UsageError
from mconv.manifest import config as manifest_config
from mconv.manifest import reader
from mconv.manifest.recognise import (
    LFS,
    describe_unknown,
    detect_format,
    find_promised_format,
    read_head,
)
from mconv.manifest.yaml import Node, Problems
from mconv.values import Checked, Facts, Found, SourceConfig

# and folders whose name begins with a dot
SKIPPED = {"node_modules", "__pycache__", "site-packages", "build", "dist"}
ARTIFACT = "mconv.json"  # beside what mconv made itself
LARGEST = 200_000  # files of a tree


def inspect(path: Path) -> Found | None:
    """What one file or folder is, or None where it is no model and does not claim to be one. Raises
    SourceError: unreadable."""
    looked = _look(path, path.name)
    return looked[0] if looked else None


def _look(path: Path, shown: str) -> tuple[Found, Facts] | None:
    form, promised = detect_format(path), find_promised_format(path)
    takers = registry.sources_taking(path)
    source = takers[0] if len(takers) == 1 else None
    facts = Facts(kind="")
    if form is None and promised is not None and path.is_file():
        made = _pretender(path, shown, promised)
        return (made, facts) if made else None
    if form is None and not takers:
        return None
    problems: list[str] = []
    if form is not None:
        try:
            facts = form.inspect(path)
        except MconvError as problem:
            problems.append(problem.message)
        problems += facts.problems
        problems += _misnamed(path, form, promised)
    told = architecture.guess_architecture(facts)
    found = Found(
        path=shown,
        format=form.name if form is not None else " or ".join(takers),
        kind=facts.kind,
        source=source,
        size_bytes=_size(path, facts),
        parameters=facts.parameters,
        model_type=told.model_type if told else None,
        evidence=told.evidence if told else None,
        needs=_needs(path, takers, form) if not problems else (),
        problems=tuple(problems),
    )
    return found, facts


def _misnamed(path: Path, form: registry.Format, promised: registry.Format | None) -> list[str]:
    """Said where the name promises another format. Safetensors in a ``.bin`` and the like."""
    if promised is None or not path.is_file() or path.suffix.lower() in form.suffixes:
        return []
    better = f": name it {path.stem}{form.suffixes[0]}" if form.suffixes else ""
    return [f"it is named like {promised.name} but is {form.name}{better}"]


def _pretender(path: Path, shown: str, promised: registry.Format) -> Found | None:
    """A file whose name promises a model. ``.bin`` and ``.xml`` promise too little to speak of what
    is neither LFS nor empty."""
    begin = read_head(path)
    if path.suffix.lower() in (".bin", ".xml", ".pkl", ".pickle", ".ckpt") and not begin.startswith(
        LFS
    ):
        return None
    said = f"it is named like {promised.name} but is {describe_unknown(path)}"
    return Found(path=shown, format=None, size_bytes=path.stat().st_size, problems=(said,))


def _needs(path: Path, takers: list[str], form: registry.Format | None) -> tuple[str, ...]:
    """What the source's own check misses: a factory, inputs …"""
    if not takers:
        return (f"nothing here converts {form.name if form else 'it'}",)
    if len(takers) > 1:
        return (f"`format:` to say which of {' and '.join(takers)} it is",)
    config = SourceConfig(format=takers[0], path=str(path), root=str(path.parent))
    try:
        registry.sources()[takers[0]].check(config)
    except MconvError as problem:
        return (f"{problem.message}: {problem.hint}" if problem.hint else problem.message,)
    return ()


def _size(path: Path, facts: Facts) -> int:
    """Bytes of a file and those that belong to it; of a folder the weights that it names, else all
    of it."""
    if path.is_file():
        return path.stat().st_size + sum(p.stat().st_size for p in _companions(path, facts))
    parts = [path / n for n in facts.companions] or list(path.rglob("*"))
    return sum(p.stat().st_size for p in parts if p.is_file())


def _companions(path: Path, facts: Facts) -> list[Path]:
    """Files beside a model that belong to it and lie in its folder."""
    folder = path if path.is_dir() else path.parent
    inside = [(folder / n).resolve() for n in facts.companions]
    return [p for p in inside if p.is_relative_to(folder.resolve()) and p.is_file()]


def find(folder: Path) -> tuple[Found, ...]:
    """Every model under ``folder``, in path order. Raises UsageError where that is no folder."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", hint="`mconv verify FILE` looks at one file")
    owned: set[Path] = set()  # files that belong to a model found before
    closed: set[Path] = set()  # folders that are one model, whatever is in them
    found: list[tuple[Path, Found]] = []
    for path in _walk(folder):
        real = path.resolve()
        if real in owned or any(parent in closed for parent in real.parents):
            continue
        shown = path.relative_to(folder).as_posix()
        try:
            looked = _look(path, shown)
        except SourceError as problem:
            looked = Found(path=shown, format=None, problems=(problem.message,)), Facts(kind="")
        if looked is None:
            continue
        each, facts = looked
        owned |= set(_companions(path, facts)) - {real}
        if path.is_dir() and each.format == "huggingface":
            owned |= {p.resolve() for p in path.iterdir() if p.is_file()}
        elif path.is_dir():
            closed.add(real)
        if each.kind not in ("table", "object") or each.source:
            found.append((real, each))
    return tuple(sorted((each for real, each in found if real not in owned), key=lambda f: f.path))


def _walk(folder: Path) -> Iterator[Path]:
    """Folders before their files. Hidden ones, packages and mconv's own output are left out; links
    to folders are not followed."""
    count = 0
    for place, folders, files in os.walk(folder):
        here = Path(place)
        if ARTIFACT in files:
            folders.clear()
            continue
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in SKIPPED)
        yield here
        for name in sorted(files):
            count += 1
            if count > LARGEST:
                raise UsageError(
                    f"{folder} holds more than {LARGEST:,} files",
                    hint="name a folder nearer to the models",
                )
            if not name.startswith(".") and (here / name).is_file():
                yield here / name


def check(path: Path) -> Checked:
    """The structure of a file or folder, in full; engines may be loaded: :func:`mconv.api.verify`
    calls it in a child process."""
    form, promised = detect_format(path), find_promised_format(path)
    size = (
        path.stat().st_size
        if path.is_file()
        else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    )
    if form is None:
        said = f"it is {describe_unknown(path)}"
        if promised is not None:
            said = f"it is named like {promised.name} but is {describe_unknown(path)}"
        return Checked(
            path=str(path),
            verdict="failed" if promised else "unverified",
            size_bytes=size,
            problems=(said,),
        )
    facts = Facts(kind="")
    problems: list[str] = []
    try:
        facts = form.inspect(path)
    except MconvError as problem:
        problems.append(problem.message)
    problems += _misnamed(path, form, promised)
    if not problems:
        problems += facts.problems if form.check is None else form.check(path)
    unchecked = form.check is None and not problems
    told = architecture.guess_architecture(facts)
    return Checked(
        path=str(path),
        verdict="unverified" if unchecked else "failed" if problems else "passed",
        format=form.name,
        kind=facts.kind,
        size_bytes=size,
        model_type=told.model_type if told else None,
        evidence=told.evidence if told else None,
        problems=(f"mconv has no check of the structure of {form.name}",)
        if unchecked
        else tuple(problems),
    )


def check_path(path: str) -> Checked:
    """:func:`check`, for a child process."""
    return check(Path(path))


def draft_manifest(folder: Path, found: tuple[Found, ...]) -> str:
    """A models.yml to start from: what converts as it is, and as comments what needs something
    first.

    Raises UsageError where nothing converts as it is: a manifest needs one model.
    """
    ready = [f for f in found if f.source and not f.needs and not f.problems]
    if not ready:
        more = "; ".join(
            f"{f.path}: {(*f.problems, *f.needs)[0]}" for f in found if f.problems or f.needs
        )
        raise UsageError(
            "no model here converts as it is", hint=more[:1000] or "there is none under this folder"
        )
    lines = ["version: 1", "models:"]
    names: set[str] = set()
    for each in ready:
        lines += [
            f"  - name: {_name(each, names)}",
            f"    source: {{format: {each.source}, path: {_quoted(each.path)}}}",
        ]
        about = (
            f"{each.model_type} (by its {each.evidence})"
            if each.model_type
            else each.kind or each.format or ""
        )
        lines[-1] += f"  # {about}, {each.size_bytes / 1e6:.2f} MB"
        lines.append("    targets: [onnx, onnx:int8]")
    for each in found:
        if each not in ready:
            said = "; ".join((*each.problems, *each.needs))
            lines.append(f"  # {_plain(each.path)}: {_plain(said)}")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _name(each: Found, taken: set[str]) -> str:
    """A name that no other model has: of the file or folder, with a number where need be."""
    path = Path(each.path)
    base = path.stem if path.suffix else path.name
    base = path.parent.name if base == "model" and path.parent.name else base
    match = manifest_config.NAME.match(
        "".join(c if (c.isalnum() and c.isascii()) or c in "._-" else "-" for c in base).lstrip(
            "._-"
        )
    )
    name = match.group() if match else "model"
    number = 2
    unique = name
    while unique.lower() in taken:
        unique, number = f"{name}-{number}", number + 1
    taken.add(unique.lower())
    return unique


def validate_manifest(text: str, folder: Path) -> None:
    """Raises ManifestError where ``text`` as a manifest in ``folder`` would not load."""
    raw = yaml.compose(text, Loader=yaml.SafeLoader)
    assert raw is not None
    problems = Problems("models.yml")
    root = folder.resolve()
    reader.read(Node(raw, problems, "models.yml"), problems, root, boundary=root)

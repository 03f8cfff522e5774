"""Models in a folder tree, and what any file is, by its content.

A name only serves to say that it promises something else. A format's plug-in (``mconv/formats``)
recognises and reads a file; a source's (``mconv/sources``) says whether mconv converts it and what
it still needs. Nothing here loads a framework or runs code of a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mconv import registry
from mconv.contracts import list_defaults
from mconv.discovery import architecture
from mconv.environments.folder import is_ready
from mconv.environments.tools import find_tool
from mconv.errors import MconvError, SourceError, UsageError
from mconv.manifest.recognise import (
    LFS,
    describe_unknown,
    detect_format,
    find_promised_format,
    read_head,
)
from mconv.values import Checked, Facts, Found, Interpreter, SourceConfig, Status

# and folders whose name begins with a dot
SKIPPED = {"node_modules", "__pycache__", "site-packages", "build", "dist"}
ARTIFACT = "mconv.json"  # beside what mconv made itself
LARGEST = 200_000  # files of a tree
VAGUE_SUFFIXES = (".bin", ".xml", ".pkl", ".pickle", ".ckpt")  # which other files have as well


def inspect(path: Path) -> Found | None:
    """Return what one file or folder is, or None where it is no model and does not claim to be one.

    Raises SourceError where it cannot be read.
    """
    looked = _look(path, path.name)
    return looked[0] if looked else None


def _look(path: Path, shown: str) -> tuple[Found, Facts] | None:
    """Return what a file or folder is, and the facts of its content, or None.

    ``shown`` is the path in the answer.
    """
    form, promised = detect_format(path), find_promised_format(path)
    takers = registry.find_sources_taking(path)
    source = takers[0] if len(takers) == 1 else None
    facts = Facts(kind="")
    if form is None and promised is not None and path.is_file():
        pretender = _pretender(path, shown, promised)
        return (pretender, facts) if pretender else None
    if form is None and not takers:
        return None
    problems: list[str] = []
    if form is not None:
        try:
            facts = form.inspect(path)
        except MconvError as problem:
            problems.append(problem.message)
        except ImportError:  # what reads it is not installed; its content was recognised
            facts = Facts(kind="")
        problems += facts.problems
        problems += _misnamed(path, form, promised)
    guess = architecture.guess_architecture(facts)
    model = Found(
        path=shown,
        format=form.name if form is not None else " or ".join(takers),
        kind=facts.kind,
        source=source,
        size_bytes=_size(path, facts),
        parameters=facts.parameters,
        model_type=guess.model_type if guess else None,
        evidence=guess.evidence if guess else None,
        needs=_needs(path, takers, form) if not problems else (),
        problems=tuple(problems),
    )
    return model, facts


def _misnamed(path: Path, form: registry.Format, promised: registry.Format | None) -> list[str]:
    """Return a problem where the name promises another format, as for Safetensors in a ``.bin``."""
    if promised is None or not path.is_file() or path.suffix.lower() in form.suffixes:
        return []
    better = f": name it {path.stem}{form.suffixes[0]}" if form.suffixes else ""
    return [f"it is named like {promised.name} but is {form.name}{better}"]


def _pretender(path: Path, shown: str, promised: registry.Format) -> Found | None:
    """Return what a file is whose name promises a model, and whose content is none.

    ``.bin`` and ``.xml`` promise too little to speak of what is not a Git LFS pointer.
    """
    vague = path.suffix.lower() in VAGUE_SUFFIXES
    if vague and not read_head(path).startswith(LFS):
        return None
    problem = f"it is named like {promised.name} but is {describe_unknown(path)}"
    return Found(path=shown, format=None, size_bytes=path.stat().st_size, problems=(problem,))


def _needs(path: Path, takers: list[str], form: registry.Format | None) -> tuple[str, ...]:
    """Return what the source's own check misses: a factory, inputs and the like."""
    if not takers:
        return (f"nothing here converts {form.name if form else 'it'}",)
    if len(takers) > 1:
        return (f"`format:` to say which of {' and '.join(takers)} it is",)
    plugin = registry.sources()[takers[0]]
    config = SourceConfig(
        format=plugin.name,
        path=str(path),
        root=str(path.parent),
        options=list_defaults(plugin.options),
    )
    try:
        plugin.check(config)
    except MconvError as problem:
        return (f"{problem.message}: {problem.hint}" if problem.hint else problem.message,)
    return ()


def _size(path: Path, facts: Facts) -> int:
    """Return the bytes of a file and of those that belong to it.

    Of a folder they are those of the weights that it names, else all of it.
    """
    if path.is_file():
        return path.stat().st_size + sum(p.stat().st_size for p in _companions(path, facts))
    parts = [path / n for n in facts.companions] or list(path.rglob("*"))
    return sum(p.stat().st_size for p in parts if p.is_file())


def _companions(path: Path, facts: Facts) -> list[Path]:
    """Return the files beside a model that belong to it and lie in its folder."""
    folder = path if path.is_dir() else path.parent
    inside = [(folder / n).resolve() for n in facts.companions]
    return [p for p in inside if p.is_relative_to(folder.resolve()) and p.is_file()]


def find(folder: Path) -> tuple[Found, ...]:
    """Return every model under ``folder``, in path order.

    Raises UsageError where that is no folder, or holds too many files.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", hint="`mconv verify FILE` looks at one file")
    owned: set[Path] = set()  # files that belong to a model found before
    closed: set[Path] = set()  # folders that are one model, whatever is in them
    models: list[tuple[Path, Found]] = []
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
        model, facts = looked
        owned |= set(_companions(path, facts)) - {real}
        if path.is_dir() and model.format == "huggingface":
            owned |= {file.resolve() for file in path.iterdir() if file.is_file()}
        elif path.is_dir():
            closed.add(real)
        if model.kind not in ("table", "object") or model.source:
            models.append((real, model))
    alone = [model for real, model in models if real not in owned]
    return tuple(sorted(alone, key=lambda model: model.path))


def _walk(folder: Path) -> Iterator[Path]:
    """Yield folders before their files.

    Hidden ones, packages and mconv's own output are left out; links to folders are not followed.
    """
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
    """Check the structure of a file or folder in full.

    Engines may be loaded: :func:`mconv.api.verify` calls it in a child process.
    """
    form, promised = detect_format(path), find_promised_format(path)
    parts = [path] if path.is_file() else list(path.rglob("*"))
    size = sum(part.stat().st_size for part in parts if part.is_file())
    if form is None:
        problem_text = f"it is {describe_unknown(path)}"
        if promised is not None:
            problem_text = f"it is named like {promised.name} but is {describe_unknown(path)}"
        return Checked(
            path=str(path),
            verdict="failed" if promised else "unverified",
            size_bytes=size,
            problems=(problem_text,),
        )
    facts = Facts(kind="")
    problems: list[str] = []
    unread = ""
    try:
        facts = form.inspect(path)
    except MconvError as problem:
        problems.append(problem.message)
    except ImportError as problem:
        unread = _describe_unread(form, problem)
    problems += _misnamed(path, form, promised)
    if not problems and not unread:
        try:
            problems += facts.problems if form.check is None else form.check(path)
        except ImportError as problem:
            unread = _describe_unread(form, problem)
    verdict: Status = "failed" if problems else "passed"
    if form.check is None and not problems and not unread:
        unread = f"mconv has no check of the structure of {form.name}"
    if unread and not problems:
        verdict = "unverified"
        problems = [unread]
    guess = architecture.guess_architecture(facts)
    return Checked(
        path=str(path),
        verdict=verdict,
        format=form.name,
        kind=facts.kind,
        size_bytes=size,
        model_type=guess.model_type if guess else None,
        evidence=guess.evidence if guess else None,
        problems=tuple(problems),
    )


def _describe_unread(form: registry.Format, problem: ImportError) -> str:
    """Return why a file cannot be read here, and what to do."""
    if not form.environment:
        return f"it cannot be read here: {problem}"
    return (
        f"what reads {form.name} is not installed ({problem}); "
        f"`mconv setup --tool {form.environment}` does that"
    )


def find_readers() -> Interpreter:
    """Return mconv's own Python with the packages of all tools that files are checked with, as far
    as those are installed."""
    layers: list[str] = []
    for plugin in registry.formats().values():
        interpreter = find_tool(plugin.environment)
        if is_ready(interpreter):
            layers += interpreter.layers
    return Interpreter(layers=tuple(dict.fromkeys(layers)))


def check_path(path: str) -> Checked:
    """Call :func:`check`. This is what the child process runs."""
    return check(Path(path))

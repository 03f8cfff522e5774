"""A models.yml to start from: what was found in a folder tree, with what can be known of it.

An entry is active where the manifest's own reader takes it. One with something to fill in is a
comment beside others that are active; where there are no others it is active too, so that
``mconv plan`` names the lines to fill in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import msgspec
import yaml

from mconv import registry
from mconv.discovery.factories import (
    BASES,
    Candidate,
    find_factories,
    fits_weights,
    list_needy,
    rank_factories,
)
from mconv.discovery.inputs import Array, Guess, find_arrays, guess_inputs, match_samples
from mconv.environments.tools import read_lock
from mconv.errors import ManifestError, MconvError, one_line
from mconv.manifest import reader
from mconv.manifest.names import make_model_name
from mconv.manifest.yaml import Node, Problems
from mconv.values import Facts, Found, Frozen

LONGEST_COMMENT = 4000  # characters
WIDTH = 100  # columns of comments
LARGE = 1_000_000_000  # weights from which int8 is still too much for most machines
FILL = "FILL IN"
ENVIRONMENT = "repository"  # the name of the environment of the repository's own packages
HEAD = """\
# models.yml: the models that `mconv run` converts, checks against their source and measures.
# Begun by `mconv init`. `mconv list` shows all targets, precisions and options, `mconv schema` the
# keys. Further targets are, for example: openvino:int8, webgpu and webnn (web pages), parquet.
version: 1
"""
EMPTY = """\
# No model that mconv converts was found here. Put a file or a folder of one of these kinds into
# the repository and run `mconv init --force` again, or take the # away from what fits below, and
# correct it:
models:
#  # An ONNX file, a Hugging Face folder, a SavedModel, a .keras, .tflite or .pt2 file: the format
#  # and the inputs are in it.
#  - name: first
#    source: path/to/model.onnx
#    targets: [onnx, onnx:int8]
#
#  # PyTorch: the function that builds the module, the file of its weights (not needed where the
#  # function loads them), and its inputs.
#  - name: second
#    source: {format: pytorch, path: weights/net.pt, factory: package.module:function}
#    inputs: {image: {shape: [batch, 3, 224, 224]}}
#    targets: [onnx, onnx:int8]
"""
PROVIDED = {"PIL", "yaml"}  # imported by another name than their distribution's


class Entry(Frozen, frozen=True, kw_only=True):
    """An entry of ``models:``.

    Attributes:
        notes: What is said above it.
        fields: Its keys with their values as YAML, in order.
        gaps: What is to be filled in: the key, with what may stand there.
        needs_packages: Its code needs packages that mconv does not bring.
    """

    notes: tuple[str, ...]
    fields: dict[str, str]
    gaps: dict[str, str] = {}
    needs_packages: bool = False

    def write(self, *, active: bool = True) -> str:
        """Return it as lines of models.yml; of one that is not ``active`` all are comments, with
        the gaps filled as well as they can be.
        """
        lines: list[str] = []
        for key, value in self.fields.items():
            start = "  - " if not lines else "    "
            gap = self.gaps.get(key)
            if gap is None:
                lines.append(f"{start}{key}: {value}")
            elif active and not value:
                lines.append(f"{start}{key}:  # {FILL}: {gap}")
            else:
                lines.append(f"{start}{key}: {value or gap}  # {FILL}{'' if not value else gap}")
        if not active:
            lines = [f"  # {line[2:]}" for line in lines]
        return "\n".join([*_wrap_notes(self.notes), *lines]) + "\n"


class Draft(Frozen, frozen=True, kw_only=True):
    """A models.yml to start from.

    Attributes:
        text: What it says.
        ready: How many models it lists that convert as they are written.
        to_fill: How many have something to fill in.
        left_out: How many cannot be converted; comments say why.
    """

    text: str
    ready: int
    to_fill: int
    left_out: int


def draft_manifest(folder: Path, models: tuple[Found, ...]) -> Draft:
    """Return a models.yml to start from, for ``models`` that were found in ``folder``.

    It lists what converts, with what can be known of it. What needs something more is there with
    what is to be filled in, and what cannot be converted as a comment.
    """
    return _Draft(folder).write(models)


class _Draft:
    """What is known of the repository, looked for once it is needed.

    Attributes:
        folder: The folder of the manifest.
        names: The names of models that are taken.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: set[str] = set()

    @cached_property
    def factories(self) -> tuple[Candidate, ...]:
        """The code that builds modules."""
        return find_factories(self.folder)

    @cached_property
    def arrays(self) -> dict[Path, tuple[Array, ...]]:
        """The files of arrays."""
        return find_arrays(self.folder)

    @cached_property
    def environment(self) -> str:
        """The repository's own packages as an entry of ``environments:``; empty where it does not
        list them.
        """
        for lock in ("uv.lock", "pylock.toml"):
            if (self.folder / lock).is_file() and (self.folder / "pyproject.toml").is_file():
                return "{project: .}"
        if (self.folder / "requirements.txt").is_file():
            return "{requirements: [requirements.txt]}"
        return ""

    def write(self, models: Sequence[Found]) -> Draft:
        """Return the whole text, with what it holds."""
        ready: list[Entry] = []
        unready: list[Entry] = []
        for model in models:
            if _is_left_out(model):
                continue
            entry = self.describe(model)
            if not entry.gaps and (problems := self.find_problems(entry)):
                more = tuple(f"{FILL}: {problem}" for problem in problems)
                entry = msgspec.structs.replace(entry, notes=entry.notes + more)
                unready.append(entry)
            else:
                (unready if entry.gaps else ready).append(entry)
        entries = [entry.write() for entry in ready]
        entries += [entry.write(active=not ready) for entry in unready]
        used = any(entry.needs_packages for entry in (ready or unready))
        text = HEAD + (self.write_environment() if used else "")
        if entries:
            text += "models:\n" + "\n".join(entries)
        else:
            text += EMPTY + "".join(_wrap(line, "# ") for line in self.list_factories())
        left = [model for model in models if _is_left_out(model)]
        for model in left:
            reason = "; ".join((*model.problems, *model.needs)) or "its name is not UTF-8"
            text += _wrap(_clean(f"left out: {model.path}: {reason}"), "# ")
        return Draft(text=text, ready=len(ready), to_fill=len(unready), left_out=len(left))

    def write_environment(self) -> str:
        """Return the part of the manifest that names the repository's own packages."""
        return (
            "# What the models' own code imports; mconv installs it apart from its own packages.\n"
            f"environments:\n  {ENVIRONMENT}: {self.environment}\n"
        )

    def list_factories(self) -> list[str]:
        """Return a sentence for functions that build modules, for a repository without weights."""
        usable = [each for each in self.factories if not each.required]
        if not usable:
            return []
        named = [f"{each.factory} ({each.place})" for each in usable[:10]]
        return [f"Code that builds a module, for `factory:`, was found: {', '.join(named)}"]

    def describe(self, model: Found) -> Entry:
        """Return the entry of a model, filled in as far as can be."""
        facts = _read_facts(self.folder / model.path, model)
        fields = {"name": self.choose_name(model)}
        source = {"format": str(model.source), "path": _quote(model.path)}
        kind = model.kind if model.kind not in ("", "model") else ""
        described = model.model_type and f"{model.model_type} (by its {model.evidence})"
        words = " ".join(filter(None, [model.format, kind, described]))
        note = f"{model.path}: {words}, {_format_size(model.size_bytes)}"
        targets = _choose_targets(model, facts)
        if not model.needs:
            notes = (note, *self.note_samples(model))
            return Entry(
                notes=notes,
                fields={**fields, "source": _flow(source), "targets": targets},
            )
        if model.source in BASES:
            return self.describe_code(model, facts, fields, source, targets, note)
        return Entry(
            notes=(note,),
            fields={**fields, "source": _flow(source), "targets": targets},
            gaps={"source": f": {_clean('; '.join(model.needs))}"},
        )

    def describe_code(
        self,
        model: Found,
        facts: Facts,
        fields: dict[str, str],
        source: dict[str, str],
        targets: str,
        note: str,
    ) -> Entry:
        """Return the entry of a model that needs its inputs, and perhaps code that builds it."""
        notes, gaps = [note], {}
        names = tuple(facts.tensors)
        ranked: tuple[Candidate, ...] = ()
        needs_code = self.needs_code(model)
        if needs_code:
            ranked = rank_factories(self.factories, str(model.source), model.path, names)
            notes += _note_factories(ranked, names)
            if not ranked:
                needy = list_needy(self.factories, str(model.source), names)
                notes += [
                    f"{each.factory} ({each.place}) has the names of these weights, but needs "
                    f"{', '.join(each.required)}: write a function that calls it with them"
                    for each in needy[:3]
                ]
        chosen = ranked[0] if ranked else None
        packages: list[str] = []
        if chosen is not None:
            source["factory"] = _quote(chosen.factory)
            packages = _list_foreign(chosen, str(model.source))
            if packages and self.environment:
                fields["environment"] = ENVIRONMENT
            if chosen.folder:
                fields["pythonpath"] = f"[{_quote(chosen.folder)}]"
        elif needs_code:
            gaps["source"] = ": add `factory: module:function`, what returns the module"
        if packages and not self.environment:
            notes.append(
                f"its code imports {', '.join(packages)}, which mconv does not bring: list them in "
                "a requirements.txt and name that under `environments:`"
            )
        fields["source"] = _flow(source)
        arguments = chosen.inputs if chosen else ()
        known = match_samples(self.arrays, arguments)
        if known is not None:
            path, inputs = known
            fields["inputs"] = _flow_inputs(inputs)
            fields["samples"] = _quote(path.relative_to(self.folder).as_posix())
            notes += _note_labels(self.arrays[path], inputs)
        else:
            guesses, evidence = guess_inputs(arguments, facts.tensors, str(model.source))
            fields["inputs"] = ""
            gaps["inputs"] = _flow_inputs(guesses)
            notes.append(_note_inputs(chosen, evidence))
        return Entry(
            notes=tuple(notes),
            fields={**fields, "targets": targets},
            gaps=gaps,
            needs_packages="environment" in fields,
        )

    def needs_code(self, model: Found) -> bool:
        """Return whether a model still misses something where its inputs are known."""
        fields = {
            "name": "x",
            "source": _flow({"format": str(model.source), "path": _quote(model.path)}),
            "inputs": "{x: {shape: [1]}}",
            "targets": "[onnx]",
        }
        return bool(self.find_problems(Entry(notes=(), fields=fields)))

    def find_problems(self, entry: Entry) -> list[str]:
        """Return what the manifest's reader says of an entry on its own."""
        text = HEAD + (self.write_environment() if entry.needs_packages else "")
        try:
            validate_manifest(f"{text}models:\n{entry.write()}", self.folder)
        except ManifestError as problem:
            return [each.message for each in problem.problems]
        return []

    def note_samples(self, model: Found) -> list[str]:
        """Return a note on arrays that lie beside a model under its name."""
        place = self.folder / model.path
        beside = place.with_suffix(".npz")
        if not place.is_file() or beside not in self.arrays:
            return []
        named = ", ".join(array.name for array in self.arrays[beside])
        path = _quote(beside.relative_to(self.folder).as_posix())
        return [
            f"`samples: {path}` proves it on data of yours, where the arrays ({named}) are named "
            "like its inputs"
        ]

    def choose_name(self, model: Found) -> str:
        """Return the file's or folder's name as a model's, with a number where another has it."""
        path = Path(model.path)
        base = path.stem if path.suffix else path.name
        base = path.parent.name if base == "model" and path.parent.name else base
        allowed = re.sub(r"[^A-Za-z0-9._-]", "-", base)
        name = make_model_name(allowed)
        number = 2
        unique = name
        while unique.lower() in self.names:
            unique, number = f"{name}-{number}", number + 1
        self.names.add(unique.lower())
        return unique


def validate_manifest(text: str, folder: Path) -> None:
    """Raise ManifestError where ``text`` as a manifest in ``folder`` would not load."""
    raw = yaml.compose(text, Loader=yaml.SafeLoader)
    assert raw is not None
    problems = Problems("models.yml")
    root = folder.resolve()
    reader.read(Node(raw, problems, "models.yml"), problems, root, boundary=root)


def _is_left_out(model: Found) -> bool:
    """Return whether a model is none that a manifest can name."""
    nameable = model.path.encode("utf-8", "replace").decode() == model.path
    return not model.source or bool(model.problems) or not nameable


def _read_facts(path: Path, model: Found) -> Facts:
    """Return what the content of a model tells."""
    form = registry.formats().get(model.format or "")
    if form is None:
        return Facts(kind="")
    try:
        return form.inspect(path)
    except (MconvError, OSError):  # what is wrong has been said, or it went away
        return Facts(kind="")


def _choose_targets(model: Found, facts: Facts) -> str:
    """Return the targets to begin with: ONNX, and fewer bits where weights can be stored so."""
    operators = set(facts.operators)
    if any(name.startswith(("QLinear", "Dequantize", "TreeEnsemble")) for name in operators):
        return "[onnx]"
    if model.source == "sklearn":
        return "[onnx]"
    if (model.parameters or 0) >= LARGE:
        return "[onnx:fp16, onnx:int4]"
    return "[onnx, onnx:int8]"


def _list_foreign(candidate: Candidate, source: str) -> list[str]:
    """Return what the code imports that the tool of a source does not bring."""
    tool = registry.sources()[source].environment
    brought = {pin.name.replace("-", "_") for pin in read_lock(tool)} if tool else set()
    return [name for name in candidate.imports if name not in brought | PROVIDED]


def _note_factories(ranked: Sequence[Candidate], names: Sequence[str]) -> list[str]:
    """Return notes on the code that may build a module, the first of which is taken."""
    if not ranked:
        return ["no function without arguments was found that builds a module of these weights"]
    first = ranked[0]
    built = first.builds.rpartition(".")[2]
    evidence = "all names of the weights" if fits_weights(first, names) else "perhaps these weights"
    words = f"{first.place} is" if first.is_class else f"{first.place} builds"
    notes = [f"{words} {built}, which has {evidence}"]
    if others := [each.factory for each in ranked[1:6]]:
        notes.append(f"other code that may build it: {', '.join(others)}")
    return notes


def _note_inputs(chosen: Candidate | None, evidence: str) -> str:
    """Return a note on what inputs are guessed by."""
    words = []
    if chosen is not None and chosen.inputs:
        words.append(f"the arguments of its forward({', '.join(chosen.inputs)})")
    if evidence:
        words.append(f"the first weight: {evidence}")
    by = f", by {' and '.join(words)}" if words else ""
    return f"its inputs are a guess{by}; a word in a shape is a free axis"


def _note_labels(arrays: Sequence[Array], inputs: Sequence[Guess]) -> list[str]:
    """Return a note on an array that looks like labels of a file's samples."""
    taken = {each.name for each in inputs}
    for array in arrays:
        if array.name not in taken and len(array.shape) == 1 and "int" in array.dtype:
            return [f"`evaluate: {{labels: {array.name}, max_drop: 0.01}}` holds its accuracy, too"]
    return []


def _flow(fields: Mapping[str, str]) -> str:
    """Return keys and values as a flow mapping of YAML."""
    return "{" + ", ".join(f"{key}: {value}" for key, value in fields.items()) + "}"


def _flow_inputs(inputs: Sequence[Guess]) -> str:
    """Return inputs as a flow mapping of YAML."""
    return "{" + ", ".join(each.text for each in inputs) + "}"


def _quote(text: str) -> str:
    """Return a text as YAML writes it in a flow mapping."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in quoted)


def _clean(text: str) -> str:
    """Return a text as one line of a comment, of characters that YAML takes."""
    line = one_line(text, LONGEST_COMMENT)
    return "".join(each if each.isprintable() else "?" for each in line)


def _format_size(size: int) -> str:
    """Return a size in bytes for people."""
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _wrap_notes(notes: Sequence[str]) -> list[str]:
    """Return notes as lines of comments above an entry."""
    lines = []
    for note in notes:
        lines += _wrap(_clean(note), "  # ").splitlines()
    return lines


def _wrap(text: str, start: str) -> str:
    """Return a text as lines of a comment; what has no space is never cut."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(start) + len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return "".join(f"{start}{each}\n" for each in [*lines, line])

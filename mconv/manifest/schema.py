"""The JSON Schemas of mconv's files, made from the code that reads and writes them.

``schemas/`` holds them for editors; a test holds the two together.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, Literal

import msgspec

from mconv import registry
from mconv.contracts import Schemas
from mconv.manifest import config as manifest_config
from mconv.manifest import environments as manifest_environments
from mconv.manifest import options as manifest_options
from mconv.values import Frozen, JsonObject, Report

DRAFT = "https://json-schema.org/draft/2020-12/schema"
ATTRIBUTES = "\n\nAttributes:\n"
JsonSchema = dict[str, Any]  # a JSON Schema, or the schemas of properties by name
NAMES = ("models", "results", "mixed")


def make_schema(name: str) -> JsonSchema:
    """Return the schema called ``name``, which is one of NAMES."""
    return {
        "models": make_models_schema,
        "results": make_results_schema,
        "mixed": make_mixed_schema,
    }[name]()


class MixedLayer(Frozen, frozen=True, kw_only=True):
    """A layer of mixed.json. A person may change ``bits``; the rest describes the layer.

    Attributes:
        bits: The bits of each weight.
        kind: The operator.
        role: What the layer does in the model.
        elements: The number of its weights.
        error: What each width costs: the relative squared error of the model's outputs with this
            layer alone in it.
    """

    bits: Literal[2, 3, 4, 5, 6, 8, 32]
    kind: str = ""
    role: str = ""
    elements: int = 0
    error: dict[str, float] = {}


class Mixed(Frozen, frozen=True, kw_only=True):
    """The content of mixed.json: the quantizer, its options, and the bits of every layer.

    Attributes:
        version: The version of this format.
        quantizer: The quantizer's name.
        options: Its options.
        layers: The layers by the names of their weights.
    """

    version: Literal[1]
    quantizer: str
    options: JsonObject = {}
    layers: dict[str, MixedLayer]


def make_mixed_schema() -> JsonSchema:
    """Return the schema of mixed.json."""
    return {"$schema": DRAFT, "title": "mconv mixed.json", **_schema_of(Mixed)}


def _schema_of(kind: type[Frozen]) -> JsonSchema:
    """Return the JSON Schema of a struct.

    Its docstring describes it, and the docstring's ``Attributes:`` describe the properties, without
    the line breaks of the source.
    """
    schema = msgspec.json.schema(kind)
    for definition in schema["$defs"].values():
        if "description" not in definition:
            continue
        text, _, attributes = inspect.cleandoc(definition["description"]).partition(ATTRIBUTES)
        paragraphs = text.split("\n\n")
        definition["description"] = "\n\n".join(" ".join(each.split()) for each in paragraphs)
        for name, words in _read_attributes(attributes).items():
            definition["properties"][name]["description"] = words
    return schema


def _read_attributes(text: str) -> dict[str, str]:
    """Return the words on each attribute in the ``Attributes:`` of a docstring (Google's style)."""
    words: dict[str, list[str]] = {}
    for line in text.splitlines():
        start = re.match(r" {4}(\w+): (.*)", line)
        if start is not None:
            words[start[1]] = [start[2]]
        elif words and line.strip():
            words[next(reversed(words))].append(line.strip())
    return {name: " ".join(parts) for name, parts in words.items()}


def find_mixed_problem(value: object) -> str | None:
    """Return what is wrong with ``value`` as the content of mixed.json, or None."""
    try:
        msgspec.convert(value, Mixed)
    except msgspec.ValidationError as problem:
        return str(problem)
    return None


def make_results_schema() -> JsonSchema:
    """Return the schema of results.json, from the annotations of :class:`mconv.values.Report`."""
    return {"$schema": DRAFT, "title": "mconv results.json", **_schema_of(Report)}


def _object(properties: JsonSchema, required: tuple[str, ...] = ()) -> JsonSchema:
    """Return the schema of a mapping with ``properties`` and no other ones."""
    schema: JsonSchema = {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    if required:
        schema["required"] = list(required)
    return schema


def make_models_schema() -> JsonSchema:
    """Return the schema of models.yml.

    It is made of the key lists of :mod:`mconv.manifest.config` and the options of every installed
    plug-in.
    """
    text = {"type": "string", "minLength": 1}
    size = {
        "oneOf": [
            {"type": "integer", "minimum": 1},
            {"type": "string", "pattern": r"^\s*[0-9.]+\s*([KMGkmg][iI]?)?[Bb]?\s*$"},
        ]
    }
    time = {"type": "string", "pattern": r"^\s*[0-9.]+\s*(us|ms|s|m|min|h)\s*$"}
    metrics = {name: {"type": "number"} for name in manifest_config.TOLERANCE_KEYS}
    tolerance = _object(
        {**metrics, **{p: _object(metrics) for p in manifest_options.list_precisions()}}
    )
    limits = _object({"max_size": size, "max_latency": time})
    source_options: JsonSchema = {}
    instead_of_path: dict[str, None] = {}
    for plugin in registry.sources().values():
        source_options |= _copy(plugin.options)
        instead_of_path |= dict.fromkeys(plugin.instead_of_path)
    source = {
        "oneOf": [
            text,
            {
                **_object(
                    {"format": {"enum": list(registry.sources())}, "path": text, **source_options}
                ),
                "anyOf": [{"required": [key]} for key in ("path", *instead_of_path)],
            },
        ],
        "description": "a path (the format is detected), or a mapping",
    }
    axis = {"oneOf": [{"type": "integer", "minimum": 1}, text]}
    whole = {"type": "integer", "minimum": 1}
    tensor = _object(
        {
            "shape": {"type": "array", "items": axis},
            "dtype": {"enum": list(manifest_config.DTYPES)},
            "range": {
                "type": "array",
                "items": {"type": "number"},
                "minItems": 2,
                "maxItems": 2,
                "description": "the least and the largest value",
            },
            "kind": {"enum": list(manifest_config.INPUT_KINDS)},
            "value": {"type": "number", "description": "the one value that the input has"},
            "axes": {
                "type": "object",
                "additionalProperties": _object(dict.fromkeys(manifest_config.AXIS_KEYS, whole)),
                "description": "the sizes of free axes, by their names",
            },
            "batch_axis": {
                "type": "integer",
                "minimum": 0,
                "description": "the axis of the input's samples that counts them",
            },
        },
    )
    shared = {
        "environment": {**text, "description": "the environment that the model's code needs"},
        "network": {
            "type": "boolean",
            "default": False,
            "description": "whether the model's code may use the network",
        },
        "pythonpath": {
            "oneOf": [text, {"type": "array", "items": text}],
            "description": "folders that modules of the repository are imported from",
        },
        "samples": {
            "oneOf": [text, {"type": "array", "items": text, "minItems": 1}],
            "description": "reference inputs: an .npz with an array an input (labels, expected "
            "outputs); or a folder, or a list, of files, each a call: .npz, pictures, sounds "
            "(.wav), or texts (.txt, a text a line)",
        },
        "calibration": _object(
            {"data": text, "method": {"enum": ["minmax", "entropy", "percentile"]}}
        ),
        "evaluate": _object(
            {
                "labels": text,
                "metric": {"enum": list(manifest_config.METRICS)},
                "max_drop": {"type": "number", "minimum": 0, "maximum": 1},
                "output": text,
            },
            ("labels",),
        ),
        "optimize": {"enum": list(manifest_config.OPTIMIZE_LEVELS)},
        "targets": {
            "oneOf": [
                {"type": "array", "items": _target(tolerance, limits)},
                _target(tolerance, limits),
            ]
        },
        "limits": limits,
        "tolerance": tolerance,
        "depends_on": {
            "oneOf": [text, {"type": "array", "items": text}],
            "description": "globs of further files a change of which redoes the model",
        },
        "measure": {
            "type": "object",
            "additionalProperties": {"type": "integer", "minimum": 1},
            "description": "sizes of free axes at which latency is measured, by their names",
        },
        "resources": _object({"timeout": time, "memory": size}),
    }
    model = _object(
        {
            "name": {"type": "string", "pattern": f"^{manifest_config.NAME.pattern}$"},
            "source": source,
            "inputs": {"type": "object", "additionalProperties": tensor},
            "state": {
                "type": "object",
                "additionalProperties": text,
                "description": "outputs that are inputs of the next call: output name → input name",
            },
            **shared,
        },
        ("name", "source"),
    )
    strict = {
        "type": "boolean",
        "default": True,
        "description": "whether what could not be checked fails the run",
    }
    top = _object(
        {
            "version": {"const": 1},
            "environments": {
                "type": "object",
                "additionalProperties": _make_environment_schema(),
                "description": "Python environments by name, with the packages that models need",
            },
            "defaults": _object(shared),
            "models": {"type": "array", "minItems": 1, "items": model},
            "fail_on_unverified": strict,
            "fail-on-unverified": strict,
        },
        ("version", "models"),
    )
    return {"$schema": DRAFT, "title": "mconv models.yml", **top}


def _make_environment_schema() -> JsonSchema:
    """Return the schema of an item of ``environments:``."""
    text = {"type": "string", "minLength": 1}
    texts = {"oneOf": [text, {"type": "array", "items": text, "minItems": 1}]}
    backend = {
        "type": "string",
        "pattern": f"^({manifest_environments.BACKEND.pattern})$",
        "description": "what uv takes PyTorch for",
    }
    properties: JsonSchema = {
        "requirements": {**texts, "description": "files of requirements"},
        "packages": {**texts, "description": "requirements, such as timm==1.0.31"},
        "project": {**text, "description": "folder of pyproject.toml with uv.lock or pylock.toml"},
        "extras": {**texts, "description": "extras of the project"},
        "groups": {**texts, "description": "groups of dependencies of the project"},
        "path": {**text, "description": "a virtual environment, which is left as it is"},
        "python": {
            "type": ["string", "number"],
            "pattern": f"^{manifest_environments.PYTHON.pattern}$",
            "description": "the version of Python",
        },
        "torch-backend": backend,
        "torch_backend": backend,
    }
    return {**_object(properties), "minProperties": 1}


def _copy(options: Schemas) -> JsonSchema:
    """Return the schemas of options by name, as dicts of their own."""
    return {name: dict(schema) for name, schema in options.items()}


def _target(tolerance: JsonSchema, limits: JsonSchema) -> JsonSchema:
    """Return the schema of one item of ``targets:``."""
    names: list[str] = []
    bodies = {}
    for target in registry.targets().values():
        precisions = list(target.precisions)
        offered = [*precisions, manifest_config.AUTO] if len(precisions) > 1 else precisions
        names += [target.name, *(f"{target.name}:{precision}" for precision in offered)]
        used = []
        for quantizer in sorted(registry.quantizers().values(), key=lambda each: each.name):
            if set(quantizer.precisions) & set(precisions):
                used.append(quantizer)
        precision = {"enum": offered}
        properties: JsonSchema = {
            "precision": {
                "oneOf": [precision, {"type": "array", "items": precision, "minItems": 1}]
            },
            "method": {"enum": [quantizer.name for quantizer in used]},
            "as": {
                "type": "string",
                "pattern": f"^{manifest_config.NAME.pattern}$",
                "description": "name in place of the target's",
            },
            "tolerance": tolerance,
            "limits": limits,
        }
        for quantizer in used:
            properties |= _copy(quantizer.options)
        properties |= _copy(manifest_options.list_runtime_options(target))
        properties |= _copy(target.options)
        bodies[target.name] = {"description": target.summary, **_object(properties)}
    mapping = {
        "type": "object",
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
        "properties": bodies,
    }
    return {"oneOf": [{"enum": names}, mapping]}

"""models.yml → a validated, frozen Manifest. Every problem is reported, each at its line and
column.

``docs/manifest.md`` is the user's reference; ``mconv.manifest.schema`` writes the JSON Schema that
editors use from the same lists of keys."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mconv import registry
from mconv.compare import DEFAULT_TOLERANCES
from mconv.contracts import Schemas
from mconv.errors import MconvError, UnsupportedError
from mconv.manifest import recognise
from mconv.manifest.config import (
    AUTO,
    DEFAULT_TIMEOUT_MS,
    DTYPES,
    LIMIT_KEYS,
    MANIFEST_KEYS,
    METRICS,
    MODEL_KEYS,
    NAME,
    OPTIMIZE_LEVELS,
    PRECISIONS,
    SHARED_KEYS,
    SOURCE_KEYS,
    TOLERANCE_KEYS,
    VARIANT_KEYS,
    Calibration,
    Evaluate,
    Manifest,
    ModelConfig,
    VariantConfig,
)
from mconv.manifest.options import find_option_problem, list_runtime_options
from mconv.manifest.yaml import Node, Problems, read_document, suggest_nearest
from mconv.values import Limits, Place, SourceConfig, TensorSpec, Tolerance


def load(path: Path) -> Manifest:
    """Read and check the manifest at ``path``. Raises ManifestError carrying every problem
    found."""
    shown = (
        os.path.relpath(path)
        if path.is_absolute() and path.is_relative_to(Path.cwd())
        else str(path)
    )
    root, problems = read_document(path, shown.removeprefix("./"))
    folder = path.resolve().parent
    return read(root, problems, folder, boundary=find_repository(folder))


def read(node: Node, problems: Problems, folder: Path, *, boundary: Path) -> Manifest:
    """Check a parsed manifest; its paths are relative to ``folder`` and may not leave ``boundary``.
    Raises ManifestError."""
    manifest = _Reader(folder, boundary, problems).manifest(node)
    problems.raise_if_any()
    assert manifest is not None
    return manifest


def find_repository(folder: Path) -> Path:
    """The folder paths may not leave: the nearest one above with ``.git``, or ``folder`` itself."""
    return next((p for p in (folder, *folder.parents) if (p / ".git").exists()), folder)


class _Reader:
    def __init__(self, root: Path, boundary: Path, problems: Problems) -> None:
        self.root = root
        self.boundary = boundary
        self.problems = problems

    def manifest(self, node: Node) -> Manifest | None:
        fields = node.mapping(MANIFEST_KEYS, required=("version", "models"))
        if (version := fields.get("version")) and version.value() != 1:
            version.fail(
                f"version must be 1, not {version.kind()}",
                "this mconv reads version 1 of models.yml",
            )
        defaults = fields["defaults"].mapping(SHARED_KEYS) if "defaults" in fields else {}
        listed = fields.get("models")
        if listed is None:
            return None
        if not listed.is_list() or not listed.children():
            listed.expect("a list of at least one model")
            return None
        models: dict[str, ModelConfig] = {}
        seen: dict[str, Place] = {}
        for index, child in enumerate(listed.children()):
            child.what = f"models[{index}]"
            name, model = self.model(child, defaults)
            # case-insensitive file systems would mix their folders
            if name is not None and name.lower() in seen:
                child.fail(
                    f"the name {name!r} is already used at line {seen[name.lower()].line}",
                    "names must be unique",
                )
            elif name is not None:
                seen[name.lower()] = child.place
            if model:
                models[model.name] = model
        return Manifest(file=self.problems.file, root=str(self.root), models=tuple(models.values()))

    def model(
        self, node: Node, defaults: Mapping[str, Node]
    ) -> tuple[str | None, ModelConfig | None]:
        before = len(self.problems.found)
        own = node.mapping(MODEL_KEYS, required=("name", "source"))
        fields = {**defaults, **own}
        name = own["name"].text() if "name" in own else None
        if name is not None and not NAME.fullmatch(name):
            own["name"].fail(
                f"the name {name!r} cannot name a folder",
                "use letters, digits, '.', '_' and '-', at most 100",
            )
        if node.is_mapping() and "targets" not in fields:
            node.fail("the model lists no targets", "add `targets: [onnx]`")
        inputs = self.inputs(own["inputs"]) if "inputs" in own else ()
        state = self.state(own["state"], inputs) if "state" in own else {}
        source = self.source(own["source"], inputs) if "source" in own else None
        evaluate = self.evaluate(fields["evaluate"]) if "evaluate" in fields else None
        samples = self.file(fields["samples"]) if "samples" in fields else None
        if evaluate and not samples and "samples" not in fields:
            fields["evaluate"].fail("evaluate needs a `samples:` file that holds the labels")
        tolerances = self.tolerances(fields["tolerance"]) if "tolerance" in fields else {}
        limits = self.limits(fields["limits"]) if "limits" in fields else Limits()
        if evaluate and evaluate.max_drop is not None:
            limits = msgspec.structs.replace(limits, max_drop=evaluate.max_drop)
        variants: dict[tuple[str, str], VariantConfig] = {}
        for child in fields["targets"].children() if "targets" in fields else ():
            for variant in self.variants(child, tolerances, limits):
                if source and (said := _no_weights(source, variant)):
                    child.fail(said, "targets that take a graph do; `mconv list` shows them")
                    break
                if (variant.label, variant.precision) in variants:
                    child.fail(
                        f"{variant.label}:{variant.precision} is listed twice",
                        "`as: another-name` tells two of one target apart",
                    )
                variants[variant.label, variant.precision] = variant
        resources = (
            fields["resources"].mapping(("timeout", "memory")) if "resources" in fields else {}
        )
        timeout = (
            resources["timeout"].duration_ms() if "timeout" in resources else DEFAULT_TIMEOUT_MS
        )
        memory = resources["memory"].size() if "memory" in resources else None
        optimize = fields["optimize"].choice(OPTIMIZE_LEVELS) if "optimize" in fields else "basic"
        calibration = self.calibration(fields["calibration"]) if "calibration" in fields else None
        depends = (
            tuple(t for c in fields["depends_on"].children() if (t := c.text()))
            if "depends_on" in fields
            else ()
        )
        if len(self.problems.found) > before or not (name and source and optimize and timeout):
            return name, None
        return name, ModelConfig(
            name=name,
            source=source,
            place=node.place,
            variants=tuple(variants.values()),
            samples=samples,
            calibration=calibration,
            evaluate=evaluate,
            optimize=optimize,
            depends_on=depends,
            state=state,
            timeout_s=timeout / 1000,
            memory_bytes=memory,
        )

    def file(self, node: Node, *, folder: bool = False) -> str | None:
        """An existing file (or, with ``folder``, a folder too) inside the repository, links
        resolved."""
        text = node.text()
        if text is None:
            return None
        path = (self.root / text).resolve()
        if not path.is_relative_to(self.boundary):
            node.fail(
                f"the path {text!r} leaves the repository", f"keep it inside {self.boundary.name}/"
            )
        elif not path.exists():
            siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            node.fail(
                f"there is no file {text!r}.{suggest_nearest(path.name, siblings)}",
                "paths are relative to the manifest",
            )
        elif not folder and not path.is_file():
            node.fail(f"{text!r} is not a file")
        else:
            return str(path)
        return None

    def source(self, node: Node, inputs: tuple[TensorSpec, ...]) -> SourceConfig | None:
        known = registry.sources()
        if not node.is_mapping():
            path = self.file(node, folder=True)
            return self.checked(node, self.detected(node, path), path, {}, inputs) if path else None
        named = dict(node.items()).get("format")
        format_ = named.choice(known) if named else None
        if named and not format_:
            return None
        options = (
            known[format_].options
            if format_
            else {k: v for s in known.values() for k, v in s.options.items()}
        )
        fields = node.mapping((*SOURCE_KEYS, *options), required=("path",))
        path = self.file(fields["path"], folder=True) if "path" in fields else None
        if path is None:
            return None
        format_ = format_ or self.detected(fields["path"], path)
        if format_ is None:
            return None
        values = self.options(fields, known[format_].options, defaults=False)
        for key in fields.keys() & options.keys() - known[format_].options.keys():
            fields[key].fail(
                f"{key!r} is not an option of {format_} "
                f"sources.{suggest_nearest(key, known[format_].options)}"
            )
        return self.checked(node, format_, path, values, inputs)

    def detected(self, node: Node, path: str) -> str | None:
        found = registry.sources_taking(Path(path))
        if len(found) == 1:
            return found[0]
        problem = (
            f"could be {' or '.join(found)}"
            if found
            else f"is of no format mconv converts: it is {recognise.describe_content(Path(path))}"
        )
        node.fail(
            f"{Path(path).name} {problem}",
            f"give `source: {{format: …, path: …}}`; formats: {', '.join(registry.sources())}",
        )
        return None

    def checked(
        self,
        node: Node,
        format_: str | None,
        path: str,
        options: dict[str, Any],
        inputs: tuple[TensorSpec, ...],
    ) -> SourceConfig | None:
        if format_ is None:
            return None
        if other := recognise.describe_foreign(Path(path)):
            node.fail(
                f"{Path(path).name} is {other}, not a model",
                "name the file or folder of the model itself",
            )
            return None
        config = SourceConfig(
            format=format_, path=path, root=str(self.root), options=options, inputs=inputs
        )
        try:
            registry.sources()[format_].check(config)
        except MconvError as problem:
            node.fail(problem.message, problem.hint)
            return None
        return config

    def inputs(self, node: Node) -> tuple[TensorSpec, ...]:
        specs = []
        for name, child in node.items():
            child.what = f"input {name!r}"
            fields = child.mapping(("shape", "dtype"), required=("shape",))
            dtype = fields["dtype"].choice(DTYPES) if "dtype" in fields else "float32"
            shape: list[int | str] = []
            if "shape" in fields and not fields["shape"].is_list():
                fields["shape"].expect(
                    "a list of sizes and axis names, such as [batch, 3, 224, 224]"
                )
            for axis in (
                fields["shape"].children()
                if "shape" in fields and fields["shape"].is_list()
                else ()
            ):
                value = axis.value()
                if (isinstance(value, int) and not isinstance(value, bool) and value > 0) or (
                    isinstance(value, str) and value
                ):
                    shape.append(value)
                else:
                    axis.what = f"axis {len(shape)} of input {name!r}"
                    axis.fail(
                        f"{axis.what} is {value!r}; it must be a positive size or the name of a "
                        "free axis",
                        "for example [batch, 3, 224, 224]",
                    )
                    shape.append(1)
            dtype = "object" if dtype == "string" else dtype  # NumPy's name
            specs.append(TensorSpec(name=name, dtype=dtype or "float32", shape=tuple(shape)))
        return tuple(specs)

    def state(self, node: Node, inputs: tuple[TensorSpec, ...]) -> dict[str, str]:
        """``{output: input}``, each input once, and one of ``inputs`` where those are declared."""
        pairs: dict[str, str] = {}
        known = [s.name for s in inputs]
        for output, child in node.items():
            name = child.text()
            if name is None:
                continue
            if name in pairs.values():
                child.fail(
                    f"the input {name!r} is the state of two outputs", "pairs are `output: input`"
                )
            elif known and name not in known:
                child.fail(
                    f"{name!r} is not one of the inputs.{suggest_nearest(name, known)}",
                    f"declared: {', '.join(known)}",
                )
            else:
                pairs[output] = name
        return pairs

    def evaluate(self, node: Node) -> Evaluate | None:
        fields = node.mapping(("labels", "metric", "max_drop", "output"), required=("labels",))
        labels = fields["labels"].text() if "labels" in fields else None
        metric = fields["metric"].choice(METRICS) if "metric" in fields else "accuracy"
        drop = fields["max_drop"].number(0, 1) if "max_drop" in fields else None
        output = fields["output"].text() if "output" in fields else None
        return (
            Evaluate(labels=labels, metric=metric, max_drop=drop, output=output)
            if labels and metric
            else None
        )

    def calibration(self, node: Node) -> Calibration:
        fields = node.mapping(("data", "method"))
        data = self.file(fields["data"]) if "data" in fields else None
        method = (
            fields["method"].choice(("minmax", "entropy", "percentile"))
            if "method" in fields
            else None
        )
        return Calibration(data=data, method=method)

    def limits(self, node: Node) -> Limits:
        fields = node.mapping(LIMIT_KEYS)
        size = fields["max_size"].size() if "max_size" in fields else None
        latency = fields["max_latency"].duration_ms() if "max_latency" in fields else None
        return Limits(max_size=size, max_latency_ms=latency)

    def tolerances(self, node: Node) -> dict[str, dict[str, float]]:
        """Metrics for every precision (key ``*``), or a mapping of precision to metrics; both may
        be mixed."""
        found: dict[str, dict[str, float]] = {"*": {}}
        for key, child in node.mapping((*TOLERANCE_KEYS, *PRECISIONS)).items():
            if key in PRECISIONS:
                metrics = child.mapping(TOLERANCE_KEYS)
                found[key] = {
                    m: v for m, c in metrics.items() if (v := self.metric(m, c)) is not None
                }
            elif (value := self.metric(key, child)) is not None:
                found["*"][key] = value
        return found

    def metric(self, name: str, node: Node) -> float | None:
        if name == "sqnr_db":
            return node.number()
        return node.number(
            -1 if name == "cosine" else 0, 1 if name in ("cosine", "top1_agreement") else None
        )

    def variants(
        self, node: Node, tolerances: Mapping[str, Mapping[str, float]], limits: Limits
    ) -> Iterable[VariantConfig]:
        """``onnx`` | ``onnx:int8`` | ``{openvino: {precision: [fp16, int8], option: value}}``."""
        known = registry.targets()
        body: Node | None = None
        if node.is_mapping():
            entries = list(node.items())
            if len(entries) != 1:
                node.fail(
                    "a target is a name, or a mapping of one name to its options",
                    "for example `- openvino: {precision: int8}`",
                )
                return
            target, body = entries[0]
            precision_text: str | None = None
            at = Node(body.key_node, self.problems, "target") if body.key_node is not None else node
        else:
            text = node.text()
            if text is None:
                return
            target, _, suffix = text.partition(":")
            precision_text, at = suffix or None, node
        if target not in known:
            at.fail(
                f"{target!r} is not a known target.{suggest_nearest(target, known)}",
                f"known: {', '.join(known)}",
            )
            return
        plugin = known[target]
        fields: dict[str, Node] = {}
        if body is not None and not (isinstance(body.raw.value, str) and not body.raw.value):
            body.what = f"target {target}"
            extra = {
                k
                for q in registry.quantizers().values()
                if set(q.precisions) & set(plugin.precisions)
                for k in q.options
            }
            fields = body.mapping(
                (*VARIANT_KEYS, *plugin.options, *sorted(extra), *list_runtime_options(plugin))
            )
        names = [(node, precision_text or self.implied(plugin, fields))]
        if "precision" in fields:
            names = [(c, c.text() or "") for c in fields["precision"].children()]
        for child, precision in names:
            variant = precision and self.variant(
                child, plugin, precision, fields, tolerances, limits, node.place
            )
            if variant:
                yield variant

    def implied(self, plugin: registry.Target, fields: Mapping[str, Node]) -> str:
        """The precision where none is written: what the target's options say, else fp32."""
        if plugin.implied_precision is None:
            return "fp32"
        return (
            plugin.implied_precision({k: fields[k].value() for k in plugin.options if k in fields})
            or "fp32"
        )

    def variant(
        self,
        node: Node,
        plugin: registry.Target,
        precision: str,
        fields: Mapping[str, Node],
        tolerances: Mapping[str, Mapping[str, float]],
        limits: Limits,
        place: Place,
    ) -> VariantConfig | None:
        if precision == AUTO and len(plugin.precisions) > 1:
            return self.auto(node, plugin, fields, tolerances, limits, place)
        if precision not in plugin.precisions:
            known = "precision" if precision in PRECISIONS else "known precision"
            node.fail(
                f"{precision!r} is not a {known} of target "
                f"{plugin.name}.{suggest_nearest(precision, plugin.precisions)}",
                f"{plugin.name} offers: {', '.join(plugin.precisions)}",
            )
            return None
        label = (fields["as"].text() if "as" in fields else None) or plugin.name
        if not NAME.fullmatch(label) or (label != plugin.name and label in registry.targets()):
            fields["as"].fail(
                f"{label!r} cannot name a variant",
                "letters, digits, dots, dashes and underscores; not another target",
            )
            return None
        method = fields["method"].choice(registry.quantizers()) if "method" in fields else None
        quantizer = registry.quantizer_for(plugin, precision, method)
        if method and quantizer and precision not in quantizer.precisions:
            fields["method"].fail(
                f"method {method!r} does not make {precision}",
                f"it makes: {', '.join(quantizer.precisions)}",
            )
            return None
        own = self.tolerances(fields["tolerance"]) if "tolerance" in fields else {}
        merged: dict[str, Any] = msgspec.structs.asdict(DEFAULT_TOLERANCES[precision])
        for layer in (tolerances, own):
            merged |= {**layer.get("*", {}), **layer.get(precision, {})}
        own_limits = self.limits(fields["limits"]) if "limits" in fields else Limits()
        limits = msgspec.structs.replace(
            limits, **{k: v for k, v in msgspec.structs.asdict(own_limits).items() if v is not None}
        )
        options = self.options(fields, plugin.options)
        try:
            plugin.check(precision=precision, options=options, method=method)
        except UnsupportedError as problem:
            node.fail(f"{plugin.name}:{precision}: {problem.message}", problem.hint)
            return None
        return VariantConfig(
            target=plugin.name,
            label=label,
            precision=precision,
            method=quantizer.name if quantizer else None,
            options=options,
            quantizer_options=self.options(fields, quantizer.options) if quantizer else {},
            runtime_options=self.options(fields, list_runtime_options(plugin)),
            tolerance=Tolerance(**merged),
            limits=limits,
            place=place,
        )

    def auto(
        self,
        node: Node,
        plugin: registry.Target,
        fields: Mapping[str, Node],
        tolerances: Mapping[str, Mapping[str, float]],
        limits: Limits,
        place: Place,
    ) -> VariantConfig | None:
        """Every precision of the target, all held to the tolerance of ``auto``; those that the
        target refuses are left out."""
        own = self.tolerances(fields["tolerance"]) if "tolerance" in fields else {}
        asked: dict[str, Any] = msgspec.structs.asdict(DEFAULT_TOLERANCES[AUTO])
        for layer in (tolerances, own):
            asked |= {**layer.get("*", {}), **layer.get(AUTO, {})}
        rest = {k: v for k, v in fields.items() if k not in ("tolerance", "method")}
        before = len(self.problems.found)
        found = []
        for precision in plugin.precisions:
            made = self.variant(node, plugin, precision, rest, {}, limits, place)
            if made is not None:
                found.append(msgspec.structs.replace(made, tolerance=Tolerance(**asked)))
        if found:
            del self.problems.found[before:]
            return msgspec.structs.replace(
                found[0], precision=AUTO, method=None, candidates=tuple(found)
            )
        return None

    def options(
        self, fields: Mapping[str, Node], options: Schemas, defaults: bool = True
    ) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, schema in options.items():
            if name in fields:
                value = fields[name].value()
                if (problem := find_option_problem(value, schema)) is None:
                    values[name] = value
                else:
                    fields[name].fail(f"{name} {problem}, not {value!r}", schema.get("description"))
            elif defaults and "default" in schema:
                values[name] = schema["default"]
        return values


def _no_weights(source: SourceConfig, variant: VariantConfig) -> str | None:
    """Why the source cannot feed this target, or None."""
    if (
        registry.targets()[variant.target].accepts != ("weights",)
        or registry.sources()[source.format].weights is not None
    ):
        return None
    return (
        f"target {variant.target} takes weights by name, which {source.format} sources do not give"
    )

"""The reader of models.yml: a validated, frozen Manifest, or every problem at its line and column.

``docs/manifest.md`` is the user's reference; ``mconv.manifest.schema`` writes the JSON Schema that
editors use from the same lists of keys.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from mconv import registry
from mconv.compare import DEFAULT_TOLERANCES
from mconv.contracts import Schemas, list_defaults
from mconv.errors import MconvError, UnsupportedError
from mconv.manifest import environments, pyproject, recognise
from mconv.manifest.collisions import find_collisions
from mconv.manifest.config import (
    AUTO,
    AXIS_KEYS,
    DEFAULT_TIMEOUT_MS,
    DTYPES,
    INPUT_KEYS,
    INPUT_KINDS,
    LIMIT_KEYS,
    MANIFEST_KEYS,
    METRICS,
    MODEL_KEYS,
    NAME,
    OPTIMIZE_LEVELS,
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
from mconv.manifest.names import find_name_problem
from mconv.manifest.options import find_option_problem, list_precisions, list_runtime_options
from mconv.manifest.yaml import Node, Problems, describe_unknown, read_document, suggest_nearest
from mconv.modules.search import find_repository
from mconv.plain_files import fold_name
from mconv.values import (
    AxisBound,
    EnvironmentSpec,
    InputFact,
    InputKind,
    Limits,
    Place,
    SourceConfig,
    TensorSpec,
    Tolerance,
)


def load(path: Path) -> Manifest:
    """Read and check the manifest at ``path``.

    Raises ManifestError carrying every problem found.
    """
    shown = str(path)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        shown = os.path.relpath(path)
    root, problems = read_document(path, shown.removeprefix("./"))
    folder = path.resolve().parent
    return read(root, problems, folder, boundary=find_repository(folder))


def read(node: Node, problems: Problems, folder: Path, *, boundary: Path) -> Manifest:
    """Check a parsed manifest and return it.

    Its paths are relative to ``folder`` and may not leave ``boundary``. Raises ManifestError
    carrying every problem found.
    """
    manifest = _Reader(folder, boundary, problems).manifest(node)
    problems.raise_if_any()
    assert manifest is not None
    return manifest


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


class _Reader:
    """Reads the nodes of a manifest. A method that meets a problem records it and returns None.

    Attributes:
        root: The manifest's folder.
        boundary: The folder that paths may not leave.
        problems: What is wrong so far.
        environments: The environments that the manifest names; one with a problem is None.
        pythonpath: Where code of the model that is read is imported from.
    """

    def __init__(self, root: Path, boundary: Path, problems: Problems) -> None:
        self.root = root
        self.boundary = boundary
        self.problems = problems
        self.environments: dict[str, EnvironmentSpec | None] = {}
        self.pythonpath: tuple[str, ...] = ()
        self.found_folders = pyproject.find_import_folders(root, find_repository(root))

    def manifest(self, node: Node) -> Manifest | None:
        """Read the whole document."""
        fields = node.mapping(MANIFEST_KEYS, required=("version", "models"))
        if (version := fields.get("version")) and version.value() != 1:
            version.fail(
                f"version must be 1, not {version.kind()}",
                "this mconv reads version 1 of models.yml",
            )
        strict = True
        for key in ("fail_on_unverified", "fail-on-unverified"):
            if key in fields and fields[key].value() is False:
                strict = False
        if "environments" in fields:
            node = fields["environments"]
            self.environments = environments.read_environments(node, self.root, self.file)
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
            folded = fold_name(name) if name is not None else ""
            if folded in seen:
                child.fail(
                    f"the name {name!r} is already used at {seen[folded]}", "names must be unique"
                )
            elif folded:
                seen[folded] = child.place
                if model:
                    models[model.name] = model
        self.problems.found += find_collisions(models.values())
        return Manifest(
            file=self.problems.file,
            root=str(self.root),
            models=tuple(models.values()),
            fail_on_unverified=strict,
        )

    def model(
        self, node: Node, defaults: Mapping[str, Node]
    ) -> tuple[str | None, ModelConfig | None]:
        """Read one entry of ``models:`` and return its name and, where all is well, its config."""
        before = len(self.problems.found)
        own = node.mapping(MODEL_KEYS, required=("name", "source"))
        fields = {**defaults, **own}
        name = own["name"].text() if "name" in own else None
        if name is not None and (problem := find_name_problem(name)) is not None:
            own["name"].fail(*problem)
        if node.is_mapping() and "targets" not in fields:
            node.fail("the model lists no targets", "add `targets: [onnx]`")
        inputs, facts = self.inputs(own["inputs"]) if "inputs" in own else ((), ())
        state = self.state(own["state"], inputs) if "state" in own else {}
        self.pythonpath = self.folders(fields.get("pythonpath"))
        source = self.source(own["source"], inputs) if "source" in own else None
        evaluate = self.evaluate(fields["evaluate"]) if "evaluate" in fields else None
        samples = self.samples(fields["samples"]) if "samples" in fields else ()
        if source and samples:
            source = msgspec.structs.replace(source, samples=samples)
        if evaluate and not samples and "samples" not in fields:
            fields["evaluate"].fail("evaluate needs a `samples:` file that holds the labels")
        tolerances = self.tolerances(fields["tolerance"]) if "tolerance" in fields else {}
        limits = self.limits(fields["limits"]) if "limits" in fields else Limits()
        if evaluate and evaluate.max_drop is not None:
            limits = msgspec.structs.replace(limits, max_drop=evaluate.max_drop)
        children = fields["targets"].children() if "targets" in fields else ()
        variants = self.distinct_variants(children, source, tolerances, limits)
        resources = (
            fields["resources"].mapping(("timeout", "memory")) if "resources" in fields else {}
        )
        timeout = (
            resources["timeout"].duration_ms() if "timeout" in resources else DEFAULT_TIMEOUT_MS
        )
        memory = resources["memory"].size() if "memory" in resources else None
        optimize = fields["optimize"].choice(OPTIMIZE_LEVELS) if "optimize" in fields else "basic"
        calibration = self.calibration(fields["calibration"]) if "calibration" in fields else None
        environment = self.environment(fields["environment"]) if "environment" in fields else None
        network = self.flag(fields["network"]) if "network" in fields else False
        depends = []
        for child in fields["depends_on"].children() if "depends_on" in fields else ():
            if pattern := child.text():
                depends.append(pattern)
        if len(self.problems.found) > before or not (name and source and optimize and timeout):
            return name, None
        return name, ModelConfig(
            name=name,
            source=source,
            place=node.place,
            variants=variants,
            samples=samples,
            calibration=calibration,
            evaluate=evaluate,
            optimize=optimize,
            environment=environment,
            network=network,
            depends_on=tuple(depends),
            state=state,
            facts=facts,
            measure=self.sizes(fields["measure"]) if "measure" in fields else {},
            timeout_s=timeout / 1000,
            memory_bytes=memory,
        )

    def environment(self, node: Node) -> EnvironmentSpec | None:
        """Read the name of an environment."""
        name = node.text()
        if name is not None and name not in self.environments:
            message, hint = describe_unknown(name, "environment", self.environments)
            node.fail(message, hint if self.environments else "list it under `environments:`")
        return self.environments.get(name) if name is not None else None

    def flag(self, node: Node) -> bool:
        """Read true or false."""
        value = node.value()
        if not isinstance(value, bool):
            node.expect("true or false")
        return value is True

    def distinct_variants(
        self,
        nodes: Iterable[Node],
        source: SourceConfig | None,
        tolerances: Mapping[str, Mapping[str, float]],
        limits: Limits,
    ) -> tuple[VariantConfig, ...]:
        """Read the items of ``targets:``; each target and precision may stand there once."""
        variants: dict[tuple[str, str], VariantConfig] = {}
        for node in nodes:
            for variant in self.variants(node, tolerances, limits):
                if source and (reason := _no_weights(source, variant)):
                    node.fail(reason, "targets that take a graph do; `mconv list` shows them")
                    break
                if (variant.label, variant.precision) in variants:
                    node.fail(
                        f"{variant.label}:{variant.precision} is listed twice",
                        "`as: another-name` tells two of one target apart",
                    )
                variants[variant.label, variant.precision] = variant
        return tuple(variants.values())

    def file(self, node: Node, *, folder: bool = False) -> str | None:
        """Read the path of an existing file (or, with ``folder``, of a folder too).

        The path that is returned is absolute, with links resolved. It may not leave the repository.
        """
        text = node.text()
        if text is None:
            return None
        path = (self.root / text).resolve()
        if not path.is_relative_to(self.boundary):
            hint = f"keep it inside {self.boundary.name}/"
            if not (self.boundary / ".git").exists():
                hint += ", which counts as the repository since no folder above it has .git"
            node.fail(f"the path {text!r} leaves the repository", hint)
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

    def folders(self, node: Node | None) -> tuple[str, ...]:
        """Read folders that code is imported from; those that are found of themselves follow."""
        named: list[str] = []
        for child in node.children() if node is not None else ():
            path = self.file(child, folder=True)
            if path is not None and not Path(path).is_dir():
                child.fail(f"{child.text()!r} is a file", "name the folder that it lies in")
            elif path is not None:
                named.append(path)
        named += [str(path) for path in self.found_folders]
        return tuple(dict.fromkeys(path for path in named if path != str(self.root)))

    def samples(self, node: Node) -> tuple[str, ...]:
        """Read the path of a file or folder of samples, or a list of files."""
        children = node.children()
        several = len(children) > 1
        paths = [self.file(child, folder=not several) for child in children]
        return tuple(path for path in paths if path is not None)

    def source(self, node: Node, inputs: tuple[TensorSpec, ...]) -> SourceConfig | None:
        """Read a path, whose format is detected, or a mapping of a source."""
        known = registry.sources()
        if not node.is_mapping():
            path = self.file(node, folder=True)
            return self.checked(node, self.detected(node, path), path, {}, inputs) if path else None
        named = dict(node.items()).get("format")
        format_ = named.choice(known) if named else None
        if named and not format_:
            return None
        options: dict[str, Mapping[str, object]] = {}
        for each in [known[format_]] if format_ else known.values():
            options |= each.options
        fields = node.mapping((*SOURCE_KEYS, *options))
        if "path" in fields:
            given = self.file(fields["path"], folder=True)
            format_ = format_ or (self.detected(fields["path"], given) if given else None)
        else:
            given, format_ = "", self.pathless(node, fields, format_)
        if given is None or format_ is None:
            return None
        values = self.options(fields, known[format_].options)
        for key in fields.keys() & options.keys() - known[format_].options.keys():
            fields[key].fail(
                f"{key!r} is not an option of {format_} "
                f"sources.{suggest_nearest(key, known[format_].options)}"
            )
        return self.checked(node, format_, given, values, inputs)

    def pathless(self, node: Node, fields: Mapping[str, Node], format_: str | None) -> str | None:
        """Return the one source plug-in that makes a model of these fields alone, without a path,
        and is of ``format_`` where that is given.
        """
        makers = []
        for name, plugin in registry.sources().items():
            if name == (format_ or name) and fields.keys() & set(plugin.instead_of_path):
                makers.append(name)
        if len(makers) == 1:
            return makers[0]
        if makers:
            node.fail(
                f"{node.what} without a `path` could be {' or '.join(makers)}",
                f"say which: `format: {makers[0]}`, for example",
            )
        else:
            node.fail(f"{node.what} lacks the key 'path'")
        return None

    def detected(self, node: Node, path: str) -> str | None:
        """Return the one source plug-in that takes the file at ``path``."""
        takers = registry.find_sources_taking(Path(path))
        if len(takers) == 1:
            return takers[0]
        if takers:
            problem = f"could be {' or '.join(takers)}"
        else:
            content = recognise.describe_content(Path(path))
            problem = f"is of no format mconv converts: it is {content}"
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
        options: dict[str, object],
        inputs: tuple[TensorSpec, ...],
    ) -> SourceConfig | None:
        """Return the source, its options over their defaults, after its own plug-in has checked
        it.
        """
        if format_ is None:
            return None
        if other := recognise.describe_foreign(Path(path)):
            node.fail(
                f"{Path(path).name} is {other}, not a model",
                "name the file or folder of the model itself",
            )
            return None
        plugin = registry.sources()[format_]
        config = SourceConfig(
            format=format_,
            path=path,
            root=str(self.root),
            options={**list_defaults(plugin.options), **options},
            inputs=inputs,
            pythonpath=self.pythonpath,
        )
        try:
            plugin.check(config)
        except MconvError as problem:
            node.fail(problem.message, problem.hint)
            return None
        return config

    def inputs(self, node: Node) -> tuple[tuple[TensorSpec, ...], tuple[InputFact, ...]]:
        """Read the declared inputs: name → shape and dtype, and what else is said of them."""
        specs = []
        facts = []
        for name, child in node.items():
            child.what = f"input {name!r}"
            fields = child.mapping(INPUT_KEYS)
            if "shape" in fields:
                dtype = fields["dtype"].choice(DTYPES) if "dtype" in fields else "float32"
                dtype = "object" if dtype == "string" else dtype  # NumPy's name
                shape = self.shape(fields["shape"], name)
                specs.append(TensorSpec(name=name, dtype=dtype or "float32", shape=shape))
            elif "dtype" in fields:
                child.fail(f"{child.what} has a dtype but no shape", "give both, or neither")
            fact = self.fact(name, fields)
            if fact != InputFact(name=name):
                facts.append(fact)
        return tuple(specs), tuple(facts)

    def fact(self, name: str, fields: Mapping[str, Node]) -> InputFact:
        """Read what is said of the input ``name`` beside its shape."""
        low, high = self.interval(fields["range"]) if "range" in fields else (None, None)
        axes = {}
        for axis, child in fields["axes"].items() if "axes" in fields else ():
            axes[axis] = self.axis_bound(child)
        return InputFact(
            name=name,
            low=low,
            high=high,
            kind=self.input_kind(fields["kind"]) if "kind" in fields else None,
            value=fields["value"].number() if "value" in fields else None,
            axes=axes,
            batch_axis=_whole(fields["batch_axis"].number(0)) if "batch_axis" in fields else None,
        )

    def input_kind(self, node: Node) -> InputKind | None:
        """Read what an input's values are."""
        chosen = node.choice(INPUT_KINDS)
        try:
            return msgspec.convert(chosen, InputKind) if chosen else None
        except msgspec.ValidationError:
            return None  # choice() has said what is wrong

    def sizes(self, node: Node) -> dict[str, int]:
        """Read sizes of axes by their names."""
        sizes = {}
        for name, child in node.items():
            if (size := _whole(child.number(1))) is not None:
                sizes[name] = size
        return sizes

    def interval(self, node: Node) -> tuple[float | None, float | None]:
        """Read ``[low, high]``."""
        ends = [child.number() for child in node.children()] if node.is_list() else []
        low, high = ends if len(ends) == 2 else (None, None)
        if low is None or high is None or low > high:
            node.fail("a range is [low, high], the least and the largest value", "such as [0, 255]")
            return None, None
        return low, high

    def axis_bound(self, node: Node) -> AxisBound:
        """Read the sizes that a free axis takes."""
        fields = node.mapping(AXIS_KEYS)
        numbers = {name: _whole(child.number(1)) for name, child in fields.items()}
        least, most = numbers.get("min") or 1, numbers.get("max")
        if most is not None and most < least:
            node.fail(f"the largest size {most} is below the least, {least}")
        return AxisBound(min=least, max=most, multiple=numbers.get("multiple") or 1)

    def shape(self, node: Node, name: str) -> tuple[int | str, ...]:
        """Read the axes of the input ``name``: sizes, and names of free axes."""
        if not node.is_list():
            node.expect("a list of sizes and axis names, such as [batch, 3, 224, 224]")
            return ()
        shape: list[int | str] = []
        for axis in node.children():
            value = axis.value()
            is_size = isinstance(value, int) and not isinstance(value, bool) and value > 0
            if is_size or (isinstance(value, str) and value):
                shape.append(value)
                continue
            axis.what = f"axis {len(shape)} of input {name!r}"
            axis.fail(
                f"{axis.what} is {value!r}; it must be a positive size or the name of a free axis",
                "for example [batch, 3, 224, 224]",
            )
            shape.append(1)
        return tuple(shape)

    def state(self, node: Node, inputs: tuple[TensorSpec, ...]) -> dict[str, str]:
        """Read ``{output: input}``, each input once.

        It must be one of ``inputs`` where those are declared.
        """
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
        """Read the task metric."""
        fields = node.mapping(("labels", "metric", "max_drop", "output"), required=("labels",))
        labels = fields["labels"].text() if "labels" in fields else None
        metric = fields["metric"].choice(METRICS) if "metric" in fields else "accuracy"
        drop = fields["max_drop"].number(0, 1) if "max_drop" in fields else None
        output = fields["output"].text() if "output" in fields else None
        if not labels or not metric:
            return None
        return Evaluate(labels=labels, metric=metric, max_drop=drop, output=output)

    def calibration(self, node: Node) -> Calibration:
        """Read how calibration samples are had."""
        fields = node.mapping(("data", "method"))
        data = self.file(fields["data"]) if "data" in fields else None
        method = None
        if "method" in fields:
            method = fields["method"].choice(("minmax", "entropy", "percentile"))
        return Calibration(data=data, method=method)

    def limits(self, node: Node) -> Limits:
        """Read the limits of size and latency."""
        fields = node.mapping(LIMIT_KEYS)
        size = fields["max_size"].size() if "max_size" in fields else None
        latency = fields["max_latency"].duration_ms() if "max_latency" in fields else None
        return Limits(max_size=size, max_latency_ms=latency)

    def tolerances(self, node: Node) -> dict[str, dict[str, float]]:
        """Read limits of metrics, for every precision (key ``*``) and by precision."""
        tolerances: dict[str, dict[str, float]] = {"*": {}}
        precisions = list_precisions()
        for key, child in node.mapping((*TOLERANCE_KEYS, *precisions)).items():
            if key in precisions:
                tolerances[key] = self.metrics(child.mapping(TOLERANCE_KEYS))
            else:
                tolerances["*"] |= self.metrics({key: child})
        return tolerances

    def metrics(self, fields: Mapping[str, Node]) -> dict[str, float]:
        """Read the limits of metrics by their names."""
        limits = {}
        for name, node in fields.items():
            if (limit := self.metric(name, node)) is not None:
                limits[name] = limit
        return limits

    def metric(self, name: str, node: Node) -> float | None:
        """Read the limit of one metric."""
        if name == "sqnr_db":
            return node.number()
        low = -1 if name == "cosine" else 0
        high = 1 if name in ("cosine", "top1_agreement") else None
        return node.number(low, high)

    def variants(
        self, node: Node, tolerances: Mapping[str, Mapping[str, float]], limits: Limits
    ) -> Iterable[VariantConfig]:
        """Read one item of ``targets:`` and yield its variants.

        It is written ``onnx`` | ``onnx:int8`` | ``{openvino: {precision: [fp16, int8], option:
        value}}``.
        """
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
            place = node
            if body.key_node is not None:
                place = Node(body.key_node, self.problems, "target")
        else:
            text = node.text()
            if text is None:
                return
            target, _, suffix = text.partition(":")
            precision_text, place = suffix or None, node
        if target not in known:
            place.fail(*describe_unknown(target, "target", known))
            return
        plugin = known[target]
        fields: dict[str, Node] = {}
        if body is not None and not (isinstance(body.raw.value, str) and not body.raw.value):
            body.what = f"target {target}"
            extra: set[str] = set()
            for quantizer in registry.quantizers().values():
                if set(quantizer.precisions) & set(plugin.precisions):
                    extra |= quantizer.options.keys()
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
        """Return the precision where none is written: what the target's options say, else fp32."""
        if plugin.implied_precision is None:
            return "fp32"
        options = {name: fields[name].value() for name in plugin.options if name in fields}
        return plugin.implied_precision(options) or "fp32"

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
        """Read the variant of one precision, with its options, tolerance and limits."""
        if precision == AUTO and len(plugin.precisions) > 1:
            return self.auto(node, plugin, fields, tolerances, limits, place)
        if precision not in plugin.precisions:
            known = "precision" if precision in list_precisions() else "known precision"
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
        quantizer = registry.find_quantizer(plugin, precision, method)
        if method and quantizer and precision not in quantizer.precisions:
            fields["method"].fail(
                f"method {method!r} does not make {precision}",
                f"it makes: {', '.join(quantizer.precisions)}",
            )
            return None
        own = self.tolerances(fields["tolerance"]) if "tolerance" in fields else {}
        own_limits = self.limits(fields["limits"]) if "limits" in fields else Limits()
        for name, limit in msgspec.structs.asdict(own_limits).items():
            if limit is not None:
                limits = msgspec.structs.replace(limits, **{name: limit})
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
            tolerance=_merge_tolerances(precision, tolerances, own),
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
        """Read the variant of precision ``auto``: every precision of the target is a candidate.

        All of them are held to the tolerance of ``auto``; those that the target refuses are left
        out.
        """
        own = self.tolerances(fields["tolerance"]) if "tolerance" in fields else {}
        tolerance = _merge_tolerances(AUTO, tolerances, own)
        rest = {name: each for name, each in fields.items() if name not in ("tolerance", "method")}
        before = len(self.problems.found)
        candidates = []
        for precision in plugin.precisions:
            candidate = self.variant(node, plugin, precision, rest, {}, limits, place)
            if candidate is not None:
                candidates.append(msgspec.structs.replace(candidate, tolerance=tolerance))
        if not candidates:
            return None
        del self.problems.found[before:]
        return msgspec.structs.replace(
            candidates[0], precision=AUTO, method=None, candidates=tuple(candidates)
        )

    def options(self, fields: Mapping[str, Node], options: Schemas) -> dict[str, object]:
        """Return the values of the options: those among ``fields``, checked by their schemas, and
        the defaults of others.
        """
        values: dict[str, object] = {}
        for name, schema in options.items():
            if name in fields:
                value = fields[name].value()
                if (problem := find_option_problem(value, schema)) is None:
                    values[name] = value
                else:
                    fields[name].fail(f"{name} {problem}, not {value!r}", schema.get("description"))
            elif "default" in schema:
                values[name] = schema["default"]
        return values


def _no_weights(source: SourceConfig, variant: VariantConfig) -> str | None:
    """Return why the source cannot feed this target, or None."""
    if registry.targets()[variant.target].accepts != ("weights",):
        return None
    if registry.sources()[source.format].weights is not None:
        return None
    return (
        f"target {variant.target} takes weights by name, which {source.format} sources do not give"
    )


def _merge_tolerances(precision: str, *layers: Mapping[str, Mapping[str, float]]) -> Tolerance:
    """Return the default tolerance of a precision with ``layers`` over it, the last on top.

    Where they loosen the cosine and say nothing of ``nrmse``, that follows: numbers of mean 0 with
    the cosine c differ by √(2 (1 − c)) of their spread.
    """
    limits: dict[str, float] = {}
    for layer in layers:
        limits |= {**layer.get("*", {}), **layer.get(precision, {})}
    default = DEFAULT_TOLERANCES.get(precision, Tolerance())
    tolerance = msgspec.structs.replace(default, **limits)
    cosine = limits.get("cosine", 1.0)
    if default.cosine is None or cosine >= default.cosine:
        return tolerance
    implied = math.sqrt(2 * (1 - cosine))
    for name in ("nrmse", "nrmse_row"):
        bound = getattr(default, name)
        if bound is not None and name not in limits:
            wider = implied if name == "nrmse" else None
            tolerance = msgspec.structs.replace(tolerance, **{name: wider and max(bound, wider)})
    return tolerance

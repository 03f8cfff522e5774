"""Manifest → a graph of steps with content keys, shared between variants.

A key is the SHA-256 of what the step's result depends on and nothing else: its request, the code of
mconv that does it (the plug-in's file, the module of that kind of step, and the mconv modules they
import, found statically), the versions of its tools, the content of the user's files it reads and
the keys of the steps before it. Keys of measurements hold the machine as well.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from mconv import hardware, registry
from mconv.contracts import Plugin
from mconv.environments.interpreter import ABSENT, find_version, normalize_name
from mconv.environments.models import PYTHON, ModelRequest, find_model, list_asked
from mconv.environments.tools import PICTURES, find_build, find_tool
from mconv.errors import ManifestError, UnsupportedError
from mconv.manifest.config import Evaluate, Manifest, ModelConfig, VariantConfig
from mconv.manifest.names import name_variant
from mconv.planning.environments import list_requests
from mconv.planning.keys import digest_code, digest_files
from mconv.planning.step_graph import Plan, Step, VariantPlan
from mconv.proof.media import is_picture
from mconv.samples import COUNT, SEED
from mconv.steps.kinds import KINDS
from mconv.steps.requests import (
    AnyRequest,
    CalibrateRequest,
    EvaluateRequest,
    ExportRequest,
    InRuntime,
    InSource,
    MeasureRequest,
    OptimizeRequest,
    QuantizeRequest,
    ReferenceRequest,
    VerifyRequest,
    WeightedPart,
    WeightsRequest,
    WriteRequest,
)
from mconv.store.digests import Digests
from mconv.values import Interpreter, JsonObject, ModelResult

CALIBRATION_COUNT = 256
UNKNOWN_BYTES = 200 * 10**6  # that a model is taken for which code makes by itself


class Used(NamedTuple):
    """A plug-in that a step uses.

    Attributes:
        family: Its family.
        name: Its name.
    """

    family: registry.Family
    name: str


def make_plan(
    manifest: Manifest,
    *,
    measure: bool = True,
    threads: int | None = None,
    digests: Digests | None = None,
) -> Plan:
    """Plan every variant of ``manifest``.

    ``threads`` is how many an artifact is run with, by default the number of cores. ``digests`` of
    files that did not change need not be taken again.

    Raises ManifestError where a ``depends_on`` glob matches nothing, or the manifest says of a
    model of several parts what is of one.
    """
    digests = digests or Digests()
    steps: dict[str, Step] = {}
    variants: list[VariantPlan] = []
    models: dict[str, ModelResult] = {}
    requests = list_requests(manifest)
    environments: dict[str, dict[str, str]] = {}
    for model in manifest.models:
        name = model.environment.name if model.environment else ""
        planner = _Planner(
            manifest,
            model,
            steps,
            threads or hardware.count_cores(),
            digests,
            requests.get(name),
        )
        models[model.name] = planner.summarize()
        if planner.environment is not None:
            environments[name] = environments.get(name, {}) | planner.list_used_packages()
        variants += [planner.plan_variant(v, measure) for v in model.variants]
    return Plan(
        manifest=manifest,
        steps=steps,
        variants=tuple(variants),
        models=models,
        environments=environments,
    )


def _is_calibrated(config: VariantConfig) -> bool:
    """Return whether a variant is made with calibration samples."""
    target = registry.targets()[config.target]
    if target.accepts == ("weights",):
        return False
    quantizer = registry.find_quantizer(target, config.precision, config.method)
    return bool(quantizer and quantizer.calibration) or config.precision in target.calibrated


class _Planner:
    """Plans the variants of one model.

    Attributes:
        model: What the manifest says of it.
        steps: The steps of the whole run, by key; those of the model are added.
        threads: How many threads an artifact is run with.
        digests: Digests of files that did not change.
        source: The plug-in of its source.
        size: The bytes of its files.
        digest: The digest of its files, and of those that it depends on.
        parts: The parts of a model that is several.
        source_key: What the source puts into the keys of steps.
        environment: The environment that the model names; None where it names none.
        asked: The distributions that were asked for there.
    """

    def __init__(
        self,
        manifest: Manifest,
        model: ModelConfig,
        steps: dict[str, Step],
        threads: int,
        digests: Digests,
        request: ModelRequest | None,
    ) -> None:
        """``request`` is what the model's environment is made of, where it names one."""
        self.environment = find_model(request) if request is not None else None
        self.asked = list_asked(request.spec) if request is not None else []
        self.model = model
        self.steps = steps
        self.threads = threads
        self.digests = digests
        self.source = registry.sources()[model.source.format]
        files = [Path(p) for p in self.source.files(model.source)]
        self.size = sum(p.stat().st_size for p in files)
        files += _find_dependencies(model, Path(manifest.root))
        self.digest = digest_files(files, Path(manifest.root), digests)
        self.parts = tuple(self.source.parts(model.source))
        if len(self.parts) > 1:
            _refuse_several_parts(model, self.parts)
        self.source_key = {
            "digest": self.digest,
            # not "options": those are the target's, in the request of a step
            "source options": model.source.options,
            "inputs": msgspec.to_builtins(model.source.inputs),
            "pythonpath": [os.path.relpath(p, manifest.root) for p in model.source.pythonpath],
            **({"network": True} if model.network else {}),
        }

    def summarize(self) -> ModelResult:
        """Return the model as the report shows it."""
        source = self.model.source
        return ModelResult(
            name=self.model.name,
            format=source.format,
            path=self._show_path(),
            digest=self.digest,
            size_bytes=self.size if source.path else 0,
            place=self.model.place,
            environment=self.environment.name if self.environment is not None else None,
            network=self.model.network,
        )

    def list_used_packages(self) -> dict[str, str]:
        """Return what is installed in the model's environment of what was asked for there, and of
        what its source uses; Python's version first."""
        if self.environment is None:
            return {}
        packages = self.environment.packages
        used = map(normalize_name, self.source.tools)
        names = [PYTHON, *sorted({*self.asked, *used})]
        return {name: packages[name] for name in names if name in packages}

    def _show_path(self) -> str:
        """Return the model's path in the repository, or the code that makes a model without one."""
        source = self.model.source
        path = Path(source.path)
        if not source.path:
            named = [source.options.get(option) for option in self.source.instead_of_path]
            return next(str(code) for code in named if code)
        inside = path.is_relative_to(source.root)
        return path.relative_to(source.root).as_posix() if inside else path.name

    def plan_variant(self, config: VariantConfig, measure: bool) -> VariantPlan:
        """Plan one variant; of ``auto``, those that it chooses from."""
        if config.candidates:
            candidates = tuple(self.plan_variant(each, measure) for each in config.candidates)
            steps = candidates[0].steps
        else:
            candidates = ()
            target = registry.targets()[config.target]
            if target.accepts == ("weights",):
                steps = self._plan_weights(config, target, measure)
            else:
                steps = self._plan_graph(config, target, measure)
        return VariantPlan(
            id=name_variant(self.model.name, config.label, config.precision),
            model=self.model.name,
            config=config,
            steps=steps,
            candidates=candidates,
        )

    def _plan_graph(
        self, config: VariantConfig, target: registry.Target, measure: bool
    ) -> dict[str, str]:
        """Add the steps of a variant whose target takes a graph; return their keys by kind."""
        keys = {"export": self._add_export()}
        keys["reference"] = self._add_reference(
            keys["export"], static=target.static, shapes=target.sizes(config.options)
        )
        fp32 = keys["export"]
        if (optimized := self._add_optimize(target, keys["export"])) is not None:
            keys["optimize"] = fp32 = optimized
        quantizer = registry.find_quantizer(target, config.precision, config.method)
        calibration: dict[str, str] = {}
        if _is_calibrated(config):
            keys["calibrate"] = calibration["calibration"] = self._add_calibrate(keys["export"])
        last = fp32
        if quantizer is not None:
            keys["quantize"] = last = self._add_quantize(
                config, quantizer, {"model": fp32, **calibration}
            )
        keys["write"] = self._add(
            Used("targets", target.name),
            WriteRequest(
                parts=self.parts,
                target=target.name,
                precision=config.precision,
                options=config.options,
                name=self.model.name,
            ),
            inputs={"model": last, **calibration},
            lowers=quantizer is None and config.precision not in ("fp32", "fp16"),
        )
        if (runtime := registry.find_runtime(target)) is not None:
            keys |= self._add_runs(config, runtime, keys, fp32, measure)
        return keys

    def _plan_weights(
        self, config: VariantConfig, target: registry.Target, measure: bool
    ) -> dict[str, str]:
        """Add the steps of a variant whose target takes weights by name; return their keys by kind.

        There is no graph, and the source itself runs what was written. Its weights are one set,
        whatever graphs the model is, so no step is done once a part.
        """
        part = target.part(config.options)
        evaluate = self.model.evaluate if part is None else None
        source = Used("sources", self.source.name)
        keys = {
            "weights": self._add(
                source,
                WeightsRequest(source=self.model.source, part=part),
                also=self.source_key,
            )
        }
        keys["reference"] = self._add(
            source,
            ReferenceRequest(
                source=self.model.source,
                samples=self.model.samples,
                labels=evaluate.labels if evaluate else None,
                count=COUNT,
                seed=SEED,
                state=dict(self.model.state) if part is None else {},
                facts=self.model.facts,
                weights=WeightedPart(part=part),
            ),
            also={**self.source_key, "samples": self._digest_files(self.model.samples)},
        )
        keys["write"] = self._add(
            Used("targets", target.name),
            WriteRequest(
                target=target.name,
                precision=config.precision,
                options=config.options,
                name=self.model.name,
            ),
            inputs={"model": keys["weights"]},
        )
        artifact = InSource(
            source=self.model.source,
            part=part,
            target=target.name,
            options=config.options,
            precision=config.precision,
            threads=self.threads,
            reader=self._find_reader(target),
        )
        inputs = {"artifact": keys["write"], "reference": keys["reference"]}
        reader = [Used("targets", target.name)]
        keys["verify"] = self._add(
            source,
            VerifyRequest(artifact=artifact, evaluate=_make_evaluation(evaluate)),
            inputs=inputs,
            also=self.source_key,
            others=reader,
        )
        if measure:
            keys["measure"] = self._add(
                source,
                MeasureRequest(
                    artifact=artifact,
                    source=self.model.source,
                ),
                inputs=inputs,
                also={**self.source_key, "machine": _describe_machine()},
                others=reader,
                exclusive=True,
            )
        return keys

    def _add_export(self) -> str:
        """Add the export and return its key."""
        return self._add(
            Used("sources", self.source.name),
            ExportRequest(parts=self.parts, source=self.model.source),
            also=self.source_key,
        )

    def _add_reference(
        self, export: str, *, static: bool = False, shapes: Sequence[Mapping[str, int]] = ()
    ) -> str:
        """Add samples and the source framework's answers to them, and return the step's key.

        There are samples of each of ``shapes``, sizes of free axes by name, where there are any.
        """
        evaluate = self.model.evaluate
        return self._add(
            Used("sources", self.source.name),
            ReferenceRequest(
                parts=self.parts,
                source=self.model.source,
                samples=self.model.samples,
                labels=evaluate.labels if evaluate else None,
                count=COUNT,
                seed=SEED,
                static=static,
                shapes=tuple(dict(shape) for shape in shapes),
                state=dict(self.model.state),
                facts=self.model.facts,
                measure=self.model.measure,
                split=self._splits_samples(),
            ),
            inputs={"export": export},
            also={**self.source_key, "samples": self._digest_files(self.model.samples)},
        )

    def _add_calibrate(self, export: str) -> str:
        """Add the calibration feeds and return the step's key.

        They are the user's data, a part of the user's samples, or plausible ones drawn with another
        seed than the verification's.
        """
        samples = self.model.samples if self._splits_samples() else ()
        data = self.model.calibration.data if self.model.calibration else None
        return self._add(
            Used("sources", self.source.name),
            CalibrateRequest(
                parts=self.parts,
                source=self.model.source,
                data=data,
                samples=samples,
                count=CALIBRATION_COUNT,
                seed=SEED + 1,
                state=dict(self.model.state),
                facts=self.model.facts,
            ),
            inputs={"export": export},
            also={
                **self.source_key,
                "data": self._digest_files((data,) if data else ()),
                "samples": self._digest_files(samples),
            },
        )

    def _add_optimize(self, target: registry.Target, export: str) -> str | None:
        """Add the optimizers whose output the target takes, in order, and return the step's key.

        None is returned where the model's level has none.
        """
        level = self.model.optimize
        if level == "none" or target.optimizes:
            return None
        passes = [
            optimizer.name
            for optimizer in sorted(registry.optimizers().values(), key=lambda o: o.order)
            if level in optimizer.levels and optimizer.domains <= target.domains
        ]
        if not passes:
            return None
        return self._add(
            Used("optimizers", passes[0]),
            OptimizeRequest(parts=self.parts, passes=tuple(passes), level=level),
            inputs={"model": export, "reference": self._add_reference(export)},
            others=[Used("optimizers", name) for name in passes[1:]],
        )

    def _add_quantize(
        self, config: VariantConfig, quantizer: registry.Quantizer, inputs: Mapping[str, str]
    ) -> str:
        """Add the quantization and return its key."""
        options = config.quantizer_options
        method = self.model.calibration.method if self.model.calibration else None
        if method is not None and quantizer.calibration_option is not None:
            options = {quantizer.calibration_option: method, **options}
        return self._add(
            Used("quantizers", quantizer.name),
            QuantizeRequest(
                parts=self.parts,
                quantizer=quantizer.name,
                precision=config.precision,
                options=options,
            ),
            inputs=inputs,
        )

    def _add_runs(
        self,
        config: VariantConfig,
        runtime: registry.Runtime,
        keys: Mapping[str, str],
        fp32: str,
        measure: bool,
    ) -> dict[str, str]:
        """Add the steps that run the artifact in ``runtime``; return their keys by kind.

        They are the verification, and the measurement where that is asked for.
        """
        options = {**config.options, **config.runtime_options}
        artifact = InRuntime(
            runtime=runtime.name,
            options=options,
            precision=config.precision,
            threads=runtime.threads(config.runtime_options) or self.threads,
        )
        inputs = {"artifact": keys["write"], "reference": keys["reference"]}
        tool = runtime.choose_tool(options)
        device = find_accelerator(runtime, options)
        here = {"device": device} if device is not None else {}
        service = runtime.name if runtime.service else None
        source = Used("sources", self.source.name)
        writes_text = self.source.generate is not None  # the source's own loop drives the artifact
        runs = {
            "verify": self._add(
                Used("runtimes", runtime.name),
                VerifyRequest(
                    parts=self.parts,
                    artifact=artifact,
                    evaluate=_make_evaluation(self.model.evaluate),
                    source=self.model.source if writes_text else None,
                ),
                inputs=inputs,
                also=(self.source_key if writes_text else {}) | here,
                others=[source] if writes_text else [],
                service=service,
                tool=tool,
            )
        }
        if measure:
            runs["measure"] = self._add(
                Used("runtimes", runtime.name),
                MeasureRequest(
                    parts=self.parts,
                    artifact=artifact,
                    source=self.model.source,
                    beside=self._find_beside(tool),
                ),
                inputs={**inputs, "model": fp32} if runtime.peers else inputs,
                also={**self.source_key, **here, "machine": [*_describe_machine(), self.threads]},
                others=[source],
                exclusive=True,
                service=service,
                tool=tool,
            )
        return runs

    def _splits_samples(self) -> bool:
        """Return whether a part of the user's samples is for calibration: where some variant is
        calibrated, and there is no data for it alone. Steps of a sequence cannot be parted."""
        model = self.model
        if not model.samples or model.state or (model.calibration and model.calibration.data):
            return False
        variants = [each for config in model.variants for each in (config, *config.candidates)]
        return any(_is_calibrated(config) for config in variants if not config.candidates)

    def _digest_files(self, paths: Sequence[str]) -> str | None:
        """Return the digest of a user's files, or of all files of a folder; None without any."""
        if not paths:
            return None
        first = Path(paths[0])
        if first.is_dir():
            files = sorted(path for path in first.iterdir() if path.is_file())
            return digest_files(files, first, self.digests)
        if len(paths) == 1:
            return self.digests.sha256(first)
        return ",".join(self.digests.sha256(Path(path)) for path in paths)

    def _add(
        self,
        plugin: Used,
        request: AnyRequest,
        *,
        inputs: Mapping[str, str] | None = None,
        also: Mapping[str, object] | None = None,
        others: Sequence[Used] = (),
        exclusive: bool = False,
        service: str | None = None,
        lowers: bool = False,
        tool: str | None = None,
    ) -> str:
        """Add a step and return its key.

        ``also`` enters the key in place of what the request says of places on this machine;
        ``others`` are further plug-ins that it uses. ``tool`` is what the plug-in needs, where that
        depends on options.
        """
        used = [registry.plugins(each.family)[each.name] for each in (plugin, *others)]
        tool = tool if tool is not None else used[0].environment
        if request.runs_source:
            interpreter = self._find_source_environment()
        else:
            interpreter = find_tool(tool)
        tools: dict[str, str] = {}  # as the report shows them: of the step's own environment
        versions: dict[str, str] = {}
        for each in used:
            own = self._list_versions(each, tool if each is used[0] else each.environment)
            versions |= own
            if each is not self.source or interpreter is self._find_source_environment():
                tools |= own
        if interpreter is self.environment:
            tools |= self.list_used_packages()
        packages = self._list_packages(request, used)
        modules = [*(each.module for each in used), *KINDS[request.kind].modules]
        keyed = {
            "plugin": f"{plugin.family}/{plugin.name}",
            "code": [digest_code(module) for module in modules],
            "tools": versions,
            "request": request.key_fields() | dict(also or {}),
            "inputs": dict(inputs or {}),
            **({"environment": packages} if packages else {}),
        }
        key = hashlib.sha256(msgspec.json.encode(keyed, order="sorted")).hexdigest()
        if key not in self.steps:
            self.steps[key] = Step(
                key=key,
                plugin=plugin.name,
                label=f"{self.model.name}: {request.kind} {plugin.name}",
                request=request,
                inputs=dict(inputs or {}),
                tools=tools,
                timeout_s=self.model.timeout_s,
                memory_bytes=self.model.memory_bytes,
                exclusive=exclusive,
                service=service,
                preload=used[0].preload,
                size_bytes=self.size if self.model.source.path else max(self.size, UNKNOWN_BYTES),
                lowers=lowers,
                interpreter=interpreter,
                others=_list_started(request),
                network=self.model.network,
            )
        return key

    def _find_source_environment(self) -> Interpreter:
        """Return where the model's code runs: in the environment that it names, else in its
        source's."""
        return self.environment or find_tool(
            self.source.environment or self._find_reader_of_samples()
        )

    def _find_reader_of_samples(self) -> str:
        """Return the tool that the user's samples need, of a source that needs none itself."""
        files = [Path(path) for path in self.model.samples]
        for folder in [path for path in files if path.is_dir()]:
            files += folder.iterdir()
        return PICTURES if any(map(is_picture, files)) else ""

    def _find_beside(self, tool: str) -> Interpreter | None:
        """Return where the source is measured, where that is not in the process that measures the
        artifact in the environment of ``tool``: where it runs code of the repository, or has
        another environment."""
        where = self._find_source_environment()
        config = self.model.source
        runs_code = self.source.imports_code(config.options) or self.source.imports(config)
        apart = runs_code or where.start != find_tool(tool).start
        return where if apart else None

    def _find_reader(self, target: registry.Target) -> Interpreter | None:
        """Return where an artifact of weights is read, where that is not where the model runs."""
        where = find_tool(target.environment)
        return where if where.start != self._find_source_environment().start else None

    def _list_versions(self, plugin: Plugin, tool: str) -> dict[str, str]:
        """Return the versions of a plug-in's tools, in the environment that it is used in: its
        source's, else that of ``tool``."""
        if plugin is self.source:
            where, names = self._find_source_environment(), list(plugin.tools)
        else:
            where, names = find_tool(tool), [find_build(tool, name) for name in plugin.tools]
        return {name: find_version(where, name) for name in names}

    def _list_packages(self, request: AnyRequest, used: Sequence[Plugin]) -> dict[str, str]:
        """Return all that is installed where the model's code runs, if the step runs it and the
        model names where."""
        if self.environment is None or self.source not in used:
            return {}
        if request.runs_source or isinstance(request, MeasureRequest):
            return self.environment.packages
        return {}


def find_accelerator(runtime: registry.Runtime, options: JsonObject) -> str | None:
    """Return the name of the device, beside the processor, that an artifact is to run on.

    It is ``absent`` where this machine has none: no step is run then, but environments are planned.
    """
    try:
        return runtime.accelerator(options)
    except UnsupportedError:
        return ABSENT


def _list_started(request: AnyRequest) -> tuple[Interpreter, ...]:
    """Return the environments, other than its own, of the processes that a step starts."""
    started = []
    if isinstance(request, MeasureRequest):
        started.append(request.beside)
    if isinstance(request, VerifyRequest | MeasureRequest):
        artifact = request.artifact
        if isinstance(artifact, InSource):
            started.append(artifact.reader)
    return tuple(each for each in started if each is not None)


def _find_dependencies(model: ModelConfig, root: Path) -> list[Path]:
    """Return the files that ``depends_on`` names.

    Raises ManifestError for a glob that matches none.
    """
    files = []
    for pattern in model.depends_on:
        paths = [Path(p) for p in glob.glob(str(root / pattern), recursive=True)]
        matched = [path for path in paths if path.is_file()]
        if not matched:
            raise ManifestError(
                f"depends_on {pattern!r} matches no file",
                hint="globs are relative to the manifest, ** matches folders",
                place=model.place,
            )
        files += matched
    return files


def _refuse_several_parts(model: ModelConfig, parts: Sequence[str]) -> None:
    """Raise ManifestError where the manifest says of a model of several parts what is of one."""
    listed = ", ".join(parts)
    if model.evaluate:
        raise ManifestError(
            f"{model.name} has no single output to evaluate",
            hint=f"`evaluate` takes models of one part; this one has {listed}",
            place=model.place,
        )
    if model.state:
        raise ManifestError(
            f"{model.name} is several models: {listed}; `state` is of one", place=model.place
        )


def _make_evaluation(evaluate: Evaluate | None) -> EvaluateRequest | None:
    """Return the request of the task metric, if the manifest asks for one."""
    if evaluate is None:
        return None
    return EvaluateRequest(metric=evaluate.metric, output=evaluate.output)


def _describe_machine() -> list[str | int]:
    """Return what tells one machine's latencies from another's."""
    here = hardware.describe_machine()
    return [here.cpu, here.cores, here.system]

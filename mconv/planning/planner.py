"""Manifest → a graph of steps with content keys, shared between variants.

A key is the SHA-256 of what the step's result depends on and nothing else: its kind, the code of
mconv that runs it (the plug-in's file and the mconv modules it imports, found statically), the
versions of its tools, its parameters, the content of the user's files it reads and the keys of the
steps before it. Keys of measurements hold the machine as well."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mconv import hardware, registry
from mconv.errors import ManifestError
from mconv.manifest.config import Manifest, ModelConfig, VariantConfig
from mconv.planning.keys import code_digest, digest_files, version
from mconv.planning.step_graph import Plan, Step, VariantPlan
from mconv.samples import COUNT, SEED
from mconv.store.digests import Digests
from mconv.values import ModelResult

CALIBRATION_COUNT = 256


def make(
    manifest: Manifest,
    *,
    measure: bool = True,
    threads: int | None = None,
    digests: Digests | None = None,
) -> Plan:
    """Plan every variant of ``manifest``. Raises ManifestError where a ``depends_on`` glob matches
    nothing.

    ``digests`` of files that did not change need not be taken again.
    """
    digests = digests or Digests()
    steps: dict[str, Step] = {}
    variants: list[VariantPlan] = []
    models: dict[str, ModelResult] = {}
    for model in manifest.models:
        planner = _Planner(manifest, model, steps, threads or hardware.cores(), digests)
        models[model.name] = planner.summary()
        variants += [planner.variant(v, measure) for v in model.variants]
    return Plan(manifest=manifest, steps=steps, variants=tuple(variants), models=models)


class _Planner:
    def __init__(
        self,
        manifest: Manifest,
        model: ModelConfig,
        steps: dict[str, Step],
        threads: int,
        digests: Digests,
    ) -> None:
        self.model = model
        self.steps = steps
        self.threads = threads
        self.digests = digests
        self.source = registry.sources()[model.source.format]
        files = [Path(p) for p in self.source.files(model.source)]
        self.size = sum(p.stat().st_size for p in files)
        for pattern in model.depends_on:
            found = [
                Path(p)
                for p in glob.glob(str(Path(manifest.root) / pattern), recursive=True)
                if Path(p).is_file()
            ]
            if not found:
                hint = "globs are relative to the manifest, ** matches folders"
                raise ManifestError(
                    f"depends_on {pattern!r} matches no file", hint=hint, place=model.place
                )
            files += found
        self.digest = digest_files(files, Path(manifest.root), digests)
        parts = self.source.parts(model.source)
        self.parts = {"parts": list(parts)} if parts else {}
        if model.evaluate and len(parts) > 1:
            hint = f"`evaluate` takes models of one part; this one has {', '.join(parts)}"
            raise ManifestError(
                f"{model.name} has no single output to evaluate", hint=hint, place=model.place
            )
        if model.state and len(parts) > 1:
            raise ManifestError(
                f"{model.name} is several models: {', '.join(parts)}; `state` is of one",
                place=model.place,
            )
        self.source_params = {"source": msgspec.to_builtins(model.source)}
        self.state_params = {"state": dict(model.state)} if model.state else {}
        self.source_key = {
            "digest": self.digest,
            # not "options": those are the target's, in the parameters of a step
            "source options": model.source.options,
            "inputs": msgspec.to_builtins(model.source.inputs),
        }

    def summary(self) -> ModelResult:
        source = self.model.source
        path = Path(source.path)
        shown = (
            path.relative_to(source.root).as_posix()
            if path.is_relative_to(source.root)
            else path.name
        )
        return ModelResult(
            name=self.model.name,
            format=source.format,
            path=shown,
            digest=self.digest,
            size_bytes=self.size,
            place=self.model.place,
        )

    def step(
        self,
        kind: str,
        family: registry.Family,
        plugin: str,
        params: dict[str, Any],
        *,
        inputs: Mapping[str, str] | None = None,
        also: Mapping[str, Any] | None = None,
        others: Sequence[tuple[registry.Family, str]] = (),
        **settings: Any,
    ) -> str:
        """Add a step; ``also`` enters the key in place of what ``params`` says of paths and this
        machine; ``others``: further plug-ins it uses."""
        params = {**self.parts, **params}
        used = [registry.plugins(family)[plugin], *(registry.plugins(f)[n] for f, n in others)]
        tools = {tool: version(tool) for p in used for tool in p.tools}
        keyed = {
            k: v for k, v in params.items() if k not in ("source", "samples", "data", "threads")
        } | dict(also or {})
        parts = {
            "kind": kind,
            "plugin": f"{family}/{plugin}",
            "code": [code_digest(p.module) for p in used] + [code_digest("mconv.steps.run")],
            "tools": tools,
            "params": keyed,
            "inputs": dict(inputs or {}),
        }
        key = hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()
        if key not in self.steps:
            self.steps[key] = Step(
                key=key,
                kind=kind,
                plugin=plugin,
                label=f"{self.model.name}: {kind} {plugin}",
                params=params,
                inputs=dict(inputs or {}),
                tools=tools,
                timeout_s=self.model.timeout_s,
                memory_bytes=self.model.memory_bytes,
                preload=used[0].preload,
                size_bytes=self.size,
                **settings,
            )
        return key

    def export(self) -> str:
        return self.step(
            "export", "sources", self.model.source.format, self.source_params, also=self.source_key
        )

    def reference(
        self,
        export: str,
        static: bool,
        dims: Mapping[str, int],
        shapes: Sequence[Mapping[str, int]] = (),
    ) -> str:
        """Samples and the source framework's answers to them; of each of ``shapes`` laid over
        ``dims`` where there are any."""
        samples = self.model.samples
        evaluate = self.model.evaluate
        params = {
            **self.source_params,
            "samples": samples,
            "labels": evaluate.labels if evaluate else None,
            "count": COUNT,
            "seed": SEED,
            "static": static,
            "dims": dict(dims),
            "shapes": [dict(s) for s in shapes],
            **self.state_params,
        }
        also = {
            **self.source_key,
            "samples": self.digests.sha256(Path(samples)) if samples else None,
        }
        return self.step(
            "reference",
            "sources",
            self.model.source.format,
            params,
            inputs={"export": export},
            also=also,
        )

    def calibrate(self, export: str) -> str:
        """Calibration feeds: the user's, or plausible ones drawn with another seed than the
        verification's."""
        data = self.model.calibration.data if self.model.calibration else None
        params = {
            **self.source_params,
            "data": data,
            "count": CALIBRATION_COUNT,
            "seed": SEED + 1,
            **self.state_params,
        }
        also = {**self.source_key, "data": self.digests.sha256(Path(data)) if data else None}
        return self.step(
            "calibrate",
            "sources",
            self.model.source.format,
            params,
            inputs={"export": export},
            also=also,
        )

    def variant(self, config: VariantConfig, measure: bool) -> VariantPlan:
        if config.candidates:
            tried = tuple(self.variant(each, measure) for each in config.candidates)
            return VariantPlan(
                id=self.id(config),
                model=self.model.name,
                config=config,
                steps=tried[0].steps,
                candidates=tried,
            )
        target = registry.targets()[config.target]
        if target.accepts == ("weights",):
            return self.weights_variant(config, target, measure)
        keys: dict[str, str] = {}
        keys["export"] = last = self.export()
        dims = config.options.get("dims") or {}
        keys["reference"] = self.reference(
            last, target.static, dims, config.options.get("shapes") or ()
        )
        passes = [
            o.name
            for o in sorted(registry.optimizers().values(), key=lambda o: o.order)
            if self.model.optimize in o.levels
            and o.domains <= target.domains
            and not target.optimizes
        ]
        if passes and self.model.optimize != "none":
            checked = self.reference(last, False, {})
            params: dict[str, Any] = {"passes": passes, "level": self.model.optimize}
            others: list[tuple[registry.Family, str]] = [("optimizers", p) for p in passes[1:]]
            inputs = {"model": last, "reference": checked}
            keys["optimize"] = last = self.step(
                "optimize", "optimizers", passes[0], params, inputs=inputs, others=others
            )
        fp32 = last
        calibration: dict[str, str] = {}
        quantizer = registry.quantizer_for(target, config.precision, config.method)
        if (quantizer and quantizer.calibration) or config.precision in target.calibrated:
            keys["calibrate"] = calibration["calibration"] = self.calibrate(keys["export"])
        if quantizer:
            params = {"precision": config.precision, "options": config.quantizer_options}
            if (
                self.model.calibration
                and self.model.calibration.method
                and "ranges" in quantizer.options
            ):
                params["options"] = {
                    "ranges": self.model.calibration.method,
                    **config.quantizer_options,
                }
            inputs = {"model": last, **calibration}
            keys["quantize"] = last = self.step(
                "quantize", "quantizers", quantizer.name, params, inputs=inputs
            )
        params = {"precision": config.precision, "options": config.options, "name": self.model.name}
        inputs = {"model": last, **calibration}
        lowers = quantizer is None and config.precision not in ("fp32", "fp16")
        keys["write"] = last = self.step(
            "write", "targets", target.name, params, inputs=inputs, lowers=lowers
        )
        runtime = registry.runtimes()[target.runtimes[0]] if target.runtimes else None
        if runtime is None:
            return VariantPlan(id=self.id(config), model=self.model.name, config=config, steps=keys)
        options = {**config.options, **config.runtime_options}
        params = {
            "precision": config.precision,
            "options": options,
            "threads": options.get("threads") or self.threads,
        }
        evaluate = self.model.evaluate
        if evaluate:
            params["evaluate"] = {"metric": evaluate.metric, "output": evaluate.output}
        inputs = {"artifact": last, "reference": keys["reference"]}
        service = runtime.name if runtime.service else None
        source: tuple[registry.Family, str] = ("sources", self.model.source.format)
        if self.source.generate:  # the source's own loop drives the artifact
            checked = self.step(
                "verify",
                "runtimes",
                runtime.name,
                {**self.source_params, **params},
                inputs=inputs,
                also=self.source_key,
                others=[source],
                service=service,
            )
        else:
            checked = self.step(
                "verify", "runtimes", runtime.name, params, inputs=inputs, service=service
            )
        keys["verify"] = checked
        if measure:
            params = {**self.source_params, **{k: v for k, v in params.items() if k != "evaluate"}}
            here = hardware.machine()
            also = {**self.source_key, "machine": [here.cpu, here.cores, here.system, self.threads]}
            keys["measure"] = self.step(
                "measure",
                "runtimes",
                runtime.name,
                params,
                inputs={**inputs, "model": fp32} if runtime.peers else inputs,
                also=also,
                others=[source],
                exclusive=True,
                service=service,
            )
        return VariantPlan(id=self.id(config), model=self.model.name, config=config, steps=keys)

    def weights_variant(
        self, config: VariantConfig, target: registry.Target, measure: bool
    ) -> VariantPlan:
        """A target that takes the source's weights by name: no graph, and the source itself runs
        what was written."""
        source = self.source.name
        part = config.options.get("part")
        # one set of weights, whatever graphs the model is
        opened = {**self.source_params, "part": part, "parts": []}
        keys = {"weights": self.step("weights", "sources", source, opened, also=self.source_key)}
        params: dict[str, Any] = {
            **opened,
            "samples": self.model.samples,
            "labels": self.model.evaluate.labels if self.model.evaluate and part is None else None,
            "count": COUNT,
            "seed": SEED,
            "static": False,
            "dims": {},
            "shapes": [],
            **(self.state_params if part is None else {}),
        }
        also = {
            **self.source_key,
            "samples": self.digests.sha256(Path(self.model.samples))
            if self.model.samples
            else None,
        }
        keys["reference"] = self.step("reference", "sources", source, params, also=also)
        params = {
            "precision": config.precision,
            "options": config.options,
            "name": self.model.name,
            "parts": [],
        }
        keys["write"] = self.step(
            "write", "targets", target.name, params, inputs={"model": keys["weights"]}
        )
        params = {
            **opened,
            "target": target.name,
            "precision": config.precision,
            "options": config.options,
            "threads": self.threads,
        }
        if self.model.evaluate and part is None:
            params["evaluate"] = {
                "metric": self.model.evaluate.metric,
                "output": self.model.evaluate.output,
            }
        inputs = {"artifact": keys["write"], "reference": keys["reference"]}
        reader: list[tuple[registry.Family, str]] = [("targets", target.name)]
        keys["verify"] = self.step(
            "verify", "sources", source, params, inputs=inputs, also=self.source_key, others=reader
        )
        if measure:
            params = {k: v for k, v in params.items() if k != "evaluate"}
            here = hardware.machine()
            also = {**self.source_key, "machine": [here.cpu, here.cores, here.system]}
            keys["measure"] = self.step(
                "measure",
                "sources",
                source,
                params,
                inputs=inputs,
                also=also,
                others=reader,
                exclusive=True,
            )
        return VariantPlan(id=self.id(config), model=self.model.name, config=config, steps=keys)

    def id(self, config: VariantConfig) -> str:
        return f"{self.model.name}/{config.label}/{config.precision}"

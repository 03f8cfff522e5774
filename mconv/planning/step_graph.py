"""The graph of steps that a run carries out, and which of their files it needs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mconv.manifest.config import Manifest, VariantConfig
from mconv.steps.requests import AnyRequest
from mconv.values import OWN, Frozen, Interpreter, ModelResult


class Step(Frozen, frozen=True, kw_only=True):
    """One unit of work.

    Attributes:
        key: The digest of all that its result depends on.
        plugin: The name of the plug-in that does it.
        label: The step in words, for people.
        request: What its worker is asked.
        inputs: The keys of the steps whose files it reads, by role.
        tools: Versions of the tools that do it.
        timeout_s: Seconds after which it is stopped.
        memory_bytes: Memory beyond which it is stopped; None is all that the machine has.
        exclusive: It runs alone on the machine.
        service: The runtime whose helper process must be there.
        preload: Modules that it will import (:mod:`mconv.workers.forkserver`).
        size_bytes: Of the model's source, which tells what time and memory it will take.
        lowers: It is a write that quantizes.
        interpreter: The environment that it runs in.
        others: The environments of the processes that it starts.
        network: The model's code may use the network.
    """

    key: str
    plugin: str
    label: str
    request: AnyRequest
    inputs: dict[str, str]
    tools: dict[str, str]
    timeout_s: float
    memory_bytes: int | None = None
    exclusive: bool = False
    service: str | None = None
    preload: tuple[str, ...] = ()
    size_bytes: int = 0
    lowers: bool = False
    interpreter: Interpreter = OWN
    others: tuple[Interpreter, ...] = ()
    network: bool = False

    @property
    def kind(self) -> str:
        """The kind of step."""
        return self.request.kind


class VariantPlan(Frozen, frozen=True, kw_only=True):
    """One variant.

    Attributes:
        id: ``model/target/precision``.
        model: The model's name.
        config: What the manifest says of it.
        steps: The keys of its steps by kind, in order.
        candidates: Of ``auto``, the variants that it chooses from.
    """

    id: str
    model: str
    config: VariantConfig
    steps: dict[str, str]
    candidates: tuple[VariantPlan, ...] = ()


class Plan(Frozen, frozen=True, kw_only=True):
    """All that a run does.

    Attributes:
        manifest: What it is made from.
        steps: The steps by key, in an order in which each follows what it reads.
        variants: The variants.
        models: The models by name, as the report shows them.
        environments: What is installed in the environments that they name, by name: what was asked
            for, and what their sources use.
    """

    manifest: Manifest
    steps: dict[str, Step]
    variants: tuple[VariantPlan, ...]
    models: dict[str, ModelResult]
    environments: dict[str, dict[str, str]] = {}


def list_candidates(variants: Iterable[VariantPlan]) -> list[VariantPlan]:
    """Return the variants, in place of ``auto`` those that it chooses from."""
    candidates: list[VariantPlan] = []
    for variant in variants:
        candidates += variant.candidates or (variant,)
    return candidates


def want_files(plan: Plan, out: Path | None) -> dict[str, bool]:
    """Return the keys of the steps of every variant, and whether the files of each are needed.

    Those of a write step are where artifacts go to ``out``; of the others answers are enough.
    """
    wanted: dict[str, bool] = {}
    for variant in list_candidates(plan.variants):
        for kind, key in variant.steps.items():
            if kind == "write":
                wanted[key] = wanted.get(key, False) or out is not None
            else:
                wanted.setdefault(key, False)
    return wanted

"""Finds plug-in modules and gives each the defaults it did not write.

A plug-in is a plain module in ``mconv/sources``, ``optimizers``, ``quantizers``, ``targets``,
``runtimes`` or ``formats`` (a name starting with ``_`` is a helper, not a plug-in), a module that
another distribution names under the entry point group ``mconv.<family>``, or one that
:func:`register` was given. Its file name is its name. Importing one must not import an engine:
engines are imported inside functions.

The Protocols below are the whole contract; docs/plugins.md walks through them function by function.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mconv.errors import MconvError
from mconv.values import Device, ExportInfo, Facts, ModelInfo, Placement, SourceConfig, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from mconv.weights import About, Tensor

    Feed = Mapping[str, np.ndarray]  # tensor name -> array; one call of a model

Family = Literal["sources", "optimizers", "quantizers", "targets", "runtimes", "formats"]
# those whose plug-ins do steps
STEPS: tuple[Family, ...] = ("sources", "optimizers", "quantizers", "targets", "runtimes")
FAMILIES: tuple[Family, ...] = (*STEPS, "formats")
# option name -> JSON Schema of its value, with "default" and "description"
Options = Mapping[str, Any]


class Model(Protocol):
    """A source loaded in its own framework: the reference everything is compared with."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: int | None

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> list[Feed] | None:
        """``count`` plausible feeds (tokenised text, processed images …), or None to have them
        drawn from the input specs.

        ``dims`` fixes free axes by name; a free axis that is not in it should vary between feeds,
        so that it is tested. Feeds for ``calibration`` share no content with the others, and mostly
        one row each where the batch is free: little padding."""

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """The framework's own answer, output name to array, deterministic, in inference mode."""


class WeightedModel(Model, Protocol):
    """A model, or a part of one, whose weights can be read by name and replaced; it runs in the
    source's framework."""

    about: About
    aliases: Mapping[str, str]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight once, in the source's own dtype, one in memory at a time; names that share
        its memory are in ``aliases``."""

    def copy_files(self, out: Path) -> None:
        """Copy what goes beside the weights: configuration, tokenizer, preprocessor."""

    def replace(self, tensors: Mapping[str, Tensor]) -> None:
        """Erase every weight, then take those of ``tensors`` (names and aliases; converted to the
        type that the model runs in), so that ``run`` answers from them alone. Raises StepError
        where one is missing, unknown or of another shape."""


class Session(Protocol):
    """An artifact loaded in a runtime."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Every input fed by name (a missing or unknown one is an error), outputs copied out of
        engine-owned memory."""

    def placement(self) -> Placement:
        """Where the nodes ran, with the evidence; called after at least one run."""

    def details(self) -> dict[str, Any]:
        """Anything else for the report (inference precision, versions …), JSON-ready."""

    def close(self) -> None:
        """Release the engine."""


@dataclass(frozen=True)
class Source:
    """``detect`` looks at names and first bytes only. ``files`` lists what a key is computed from.
    ``devices`` tells what the framework finds on this machine. ``weights(config, part)`` opens the
    model, or a part of it, for targets that take weights by name; it raises UnsupportedError for a
    part that there is not. ``parts`` names the parts of a model that is several (``encoder``,
    ``decoder`` …), without loading a framework; ``export`` and ``load`` are then called for each,
    with ``config.part`` set. ``prompts`` gives first feeds of a model that writes text, and under
    ``tokens`` what the framework itself makes of each, int64 [rows, steps], greedily;
    ``generate(config, run, prompt, steps)`` makes them with an artifact, without the framework;
    ``run``: part → feed → outputs (the part ``""`` of a model that is one). See the module
    docstring."""

    name: str
    summary: str
    module: str
    detect: Callable[[Path], bool]
    export: Callable[[SourceConfig, Path], ExportInfo]
    load: Callable[[SourceConfig], Model]
    files: Callable[[SourceConfig], Sequence[Path]]
    check: Callable[[SourceConfig], None]
    parts: Callable[[SourceConfig], tuple[str, ...]]
    prompts: Callable[[SourceConfig], list[dict[str, np.ndarray]]] | None = None
    generate: Callable[..., np.ndarray] | None = None
    options: Options = field(default_factory=dict)
    devices: Callable[[], Sequence[Device]] | None = None
    weights: Callable[[SourceConfig, str | None], WeightedModel] | None = None
    tools: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()


@dataclass(frozen=True)
class Optimizer:
    """ONNX → ONNX at the ``levels`` named, in ascending ``order``; ``domains``: operator domains
    its output may need."""

    name: str
    summary: str
    module: str
    levels: tuple[str, ...]
    order: int
    optimize: Callable[..., dict[str, Any]]
    domains: frozenset[str] = frozenset({""})
    tools: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quantizer:
    """ONNX → ONNX for the ``precisions`` named; ``domains``: operator domains its output may need.
    ``configure`` says what would be done to each layer, for a person to change; ``preview`` what
    would come of it, quickly (:class:`mconv.engine.advisor.Preview`). ``stored_bits``: what a
    weight takes by precision, scales included; ``activations``: precisions that round activations
    too."""

    name: str
    summary: str
    module: str
    precisions: tuple[str, ...]
    quantize: Callable[..., dict[str, Any]]
    configure: Callable[..., dict[str, Any]] | None = None
    preview: Callable[..., dict[str, Any]] | None = None
    stored_bits: Mapping[str, float] = field(default_factory=dict)
    activations: tuple[str, ...] = ()
    options: Options = field(default_factory=dict)
    calibration: bool = False
    calibration_option: str | None = None
    domains: frozenset[str] = frozenset({""})
    tools: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """A format to deliver. ``precisions`` maps each precision to the quantizer that makes it from
    the fp32 ONNX graph, or to None where the fp32 graph is handed to ``write`` as it is (fp32, or
    the target's own engine lowers it). ``optimizes``: its converter does what the optimizers would,
    so it is given the graph as exported. ``calibrated``: the precisions for which ``write`` itself
    is given calibration feeds. ``stored_bits``: what a weight takes in the precisions that
    ``write`` itself makes. ``implied_precision(options)``: what the options say where no precision
    is written.

    ``accepts`` is ``("onnx",)``, or ``("weights",)``: then ``write`` is given a folder of
    :mod:`mconv.weights` in place of a graph, and ``read(directory, options=…)`` returns the tensors
    of what was written under the source's names, and details for the report. The source runs them:
    that is the verification, and the target has no runtimes."""

    name: str
    summary: str
    module: str
    precisions: Mapping[str, str | None]
    write: Callable[..., ModelInfo]
    check: Callable[..., None]
    sizes: Callable[[Mapping[str, Any]], Sequence[Mapping[str, int]]]
    part: Callable[[Mapping[str, Any]], str | None]
    options: Options = field(default_factory=dict)
    runtimes: tuple[str, ...] = ()
    accepts: tuple[str, ...] = ("onnx",)
    read: Callable[..., tuple[Mapping[str, Tensor], dict[str, Any]]] | None = None
    implied_precision: Callable[[Mapping[str, Any]], str | None] | None = None
    domains: frozenset[str] = frozenset({""})
    static: bool = False
    optimizes: bool = False
    calibrated: tuple[str, ...] = ()
    stored_bits: Mapping[str, float] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()


@dataclass(frozen=True)
class Runtime:
    """What can run an artifact's folder on samples. ``service``: its workers share a helper process
    (see :mod:`mconv.workers.service`), whose address they find in the environment variable of this
    name. ``peers(session, model, threads)`` is a context that yields other ways to run the fp32
    graph ``model``, measured beside the artifact: name → ``time(feed, runs)`` → milliseconds of
    each. ``devices`` tells what the engine finds on this machine. ``options``: how artifacts are
    run; they change none."""

    name: str
    summary: str
    module: str
    load: Callable[..., Session]
    threads: Callable[[Mapping[str, Any]], int | None]
    options: Options = field(default_factory=dict)
    service: str | None = None
    peers: Callable[..., Any] | None = None
    devices: Callable[[], Sequence[Device]] | None = None
    tools: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """A kind of file or folder, known by its content. ``sniff(path, head)`` gets the first 4 KiB
    (none of a folder) and says yes to a damaged one too. ``inspect`` tells what the file says of
    itself and loads no engine; it raises SourceError for damage, saying where. ``check`` looks at
    the whole structure and returns a sentence a problem; it may use an engine, in a child process.
    ``suffixes``: what such a file is usually called; ``order``: those of lower order are asked
    first."""

    name: str
    summary: str
    module: str
    suffixes: tuple[str, ...]
    sniff: Callable[[Path, bytes], bool]
    inspect: Callable[[Path], Facts]
    check: Callable[[Path], Sequence[str]] | None = None
    order: int = 0
    tools: tuple[str, ...] = ()


_KINDS: dict[str, type[Any]] = {
    "sources": Source,
    "optimizers": Optimizer,
    "quantizers": Quantizer,
    "targets": Target,
    "runtimes": Runtime,
    "formats": Format,
}


def _source_files(config: SourceConfig) -> Sequence[Path]:
    path = Path(config.path)
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def _accept(*_: Any, **__: Any) -> None:
    return None


def _whole(_: SourceConfig) -> tuple[str, ...]:
    return ()


def _no_sizes(_: Mapping[str, Any]) -> Sequence[Mapping[str, int]]:
    return ()


def _none(_: Mapping[str, Any]) -> None:
    return None


_DEFAULTS: dict[str, dict[str, Any]] = {
    "sources": {"files": _source_files, "check": _accept, "parts": _whole},
    "targets": {"check": _accept, "sizes": _no_sizes, "part": _none},
    "runtimes": {"threads": _none},
}


def _from_module(family: Family, name: str, module: ModuleType) -> Any:
    """Build the plug-in value: constants are UPPER_CASE in the module, functions are lower_case."""
    kind = _KINDS[family]
    values: dict[str, Any] = {"name": name, "module": module.__name__}
    defaults = _DEFAULTS.get(family, {})
    for key, spec in kind.__dataclass_fields__.items():
        if key in values:
            continue
        written = getattr(module, key.upper(), None)
        if written is None:
            written = getattr(module, key, defaults.get(key))
        if key == "summary" and written is None:
            written = " ".join((module.__doc__ or "").strip().partition("\n\n")[0].split())
        if written is not None:
            values[key] = written
        elif spec.default is spec.default_factory:  # both MISSING: the plug-in must write it
            raise MconvError(
                f"plug-in {module.__name__} has neither {key.upper()} nor {key}()",
                hint="docs/plugins.md lists what a plug-in of this family must define",
            )
    return kind(**values)


# (family, import name) -> folder it is imported from
_REGISTERED: dict[tuple[Family, str], str] = {}


def register(family: Family, module: ModuleType | str) -> None:
    """Add a plug-in for this process and the workers it starts, which import it again by its name.

    Raises MconvError for one that cannot be imported by name, does not keep the contract, or whose
    name is taken."""
    if family not in FAMILIES:
        raise MconvError(f"there is no family {family!r}", hint=f"there are: {', '.join(FAMILIES)}")
    name = module if isinstance(module, str) else module.__name__
    if (family, name) in _REGISTERED:
        return
    try:
        found = importlib.import_module(name) if isinstance(module, str) else module
    except ImportError as problem:
        raise MconvError(f"the plug-in {name} cannot be imported: {problem}") from problem
    file = getattr(found, "__file__", None)
    if name == "__main__" or file is None:
        raise MconvError(
            f"{name} cannot be a plug-in: its workers could not import it",
            hint="write it as a module of its own file",
        )
    short = name.rpartition(".")[2]
    if short in plugins(family):
        raise MconvError(
            f"there is a plug-in {short} in mconv.{family} already",
            hint="call the module something else",
        )
    _from_module(family, short, found)
    steps = name.count(".") + (Path(file).name == "__init__.py")
    _REGISTERED[family, name] = str(Path(file).resolve().parents[steps])
    plugins.cache_clear()


def registered() -> tuple[str, ...]:
    """What :func:`register` was given, for a worker's :func:`restore`."""
    return tuple(f"{family}:{name}:{folder}" for (family, name), folder in _REGISTERED.items())


def restore(entries: Sequence[str]) -> None:
    """Register in a worker what its parent has registered."""
    for entry in entries:
        family, name, folder = entry.split(":", 2)
        if folder not in sys.path:
            sys.path.append(folder)
        register(family, name)  # type: ignore[arg-type]


def own(family: Family) -> dict[str, ModuleType]:
    """The modules of mconv's own plug-ins of a family, by name. None of them imports an engine."""
    package = importlib.import_module(f"mconv.{family}")
    names = [
        i.name
        for i in pkgutil.iter_modules(package.__path__)
        if not i.name.startswith("_") and not i.ispkg
    ]
    return {name: importlib.import_module(f"mconv.{family}.{name}") for name in names}


@cache
def plugins(family: Family) -> Mapping[str, Any]:
    """Every plug-in of a family by name, in name order. Raises MconvError for one that does not
    keep the contract."""
    found = {name: _from_module(family, name, module) for name, module in own(family).items()}
    for entry in importlib.metadata.entry_points(group=f"mconv.{family}"):
        if entry.name in found:
            raise MconvError(
                f"two plug-ins are named {entry.name} in mconv.{family}",
                hint=f"rename the one in {entry.value}",
            )
        found[entry.name] = _from_module(family, entry.name, entry.load())
    for kind, name in _REGISTERED:
        if kind == family:
            short = name.rpartition(".")[2]
            found[short] = _from_module(family, short, importlib.import_module(name))
    return dict(sorted(found.items()))


def sources() -> Mapping[str, Source]:
    return plugins("sources")


def optimizers() -> Mapping[str, Optimizer]:
    return plugins("optimizers")


def quantizers() -> Mapping[str, Quantizer]:
    return plugins("quantizers")


def targets() -> Mapping[str, Target]:
    return plugins("targets")


def runtimes() -> Mapping[str, Runtime]:
    return plugins("runtimes")


def formats() -> Mapping[str, Format]:
    return plugins("formats")


def taking(path: Path) -> list[str]:
    """Names of the sources that say they take ``path``. One that fails over it, as over a damaged
    archive, does not."""
    found = []
    for source in sources().values():
        try:
            if source.detect(path):
                found.append(source.name)
        except Exception:  # plug-ins read files of any content with libraries of any kind
            continue
    return found


def quantizer_for(target: Target, precision: str, method: str | None) -> Quantizer | None:
    """The quantizer that makes ``precision`` for ``target``; ``method`` (the manifest's choice)
    overrides the target's default."""
    name = method or target.precisions[precision]
    return quantizers()[name] if name else None

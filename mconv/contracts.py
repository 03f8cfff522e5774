"""What a plug-in of each family is: its functions with their signatures, and the defaults it may
leave out.

A plug-in is a plain module. It defines the functions of its family below under their names, and the
constants of the family's value (:class:`Target` …) in upper case; whatever has a default it may
leave out. The module need not import anything from here. ``docs/plugins.md`` walks through every
function.

Importing this module, or a plug-in, loads no engine: engines are imported inside functions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import (
    TYPE_CHECKING,
    Any,
    Protocol,
    TypedDict,
    get_type_hints,
    runtime_checkable,
)

import msgspec
from typing_extensions import NotRequired

from mconv.errors import MconvError, one_line
from mconv.values import Device, ExportInfo, Facts, ModelInfo, Placement, SourceConfig, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from mconv.proof.media import Media
    from mconv.weights import About, Tensor

    Feed = Mapping[str, np.ndarray]  # tensor name → array; one call of a model
    Answer = dict[str, np.ndarray]  # output name → array
    Call = Callable[[Feed], Answer]

# Option name → its value, valid by the option's JSON Schema. A plug-in that wants types of its own
# options declares a TypedDict.
Options = Mapping[str, object]
Schemas = Mapping[str, Mapping[str, Any]]  # option name → JSON Schema of its value
Details = dict[str, object]  # name → what a runtime or a file tells of itself, as JSON
Remarks = dict[str, object]  # what was done, by name; under ``layers`` the error of each layer
ONNX_DOMAIN = frozenset({""})  # the default domain of ONNX's operators


# Models and sessions


class Model(Protocol):
    """A source loaded in its own framework: the reference that everything is compared with.

    Attributes:
        inputs: Its inputs; a dimension is a size or the name of a free axis.
        outputs: Its outputs.
        parameters: How many weights it has, where that is known.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: int | None

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> list[Feed] | None:
        """Return ``count`` plausible feeds (tokenised text, processed images …), or None to have
        them drawn from the input specs.

        ``dims`` fixes free axes by name; a free axis that is not in it should vary between feeds,
        so that it is tested. Feeds for ``calibration`` share no content with the others, and have
        mostly one row each where the batch is free, for little padding.
        """

    def run(self, feed: Feed) -> Answer:
        """Return the framework's own answer, deterministic, in inference mode."""


class ProcessingModel(Model, Protocol):
    """A model with a processor of its own (tokenizer, image processor …), which makes inputs of a
    user's pictures, sounds and texts."""

    def process(self, media: Media) -> Feed:
        """Return a feed of one row. Raises UsageError for a kind that the model does not take."""


class WeightedModel(Model, Protocol):
    """A model, or a part of one, whose weights can be read by name and replaced.

    Attributes:
        about: What the model is, for the file that its weights go to.
        aliases: Names that share the memory of another weight: alias → name.
    """

    about: About
    aliases: Mapping[str, str]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every weight once, in the source's own dtype, one in memory at a time."""

    def copy_files(self, out: Path) -> None:
        """Copy what goes beside the weights: configuration, tokenizer, preprocessor."""

    def replace(self, tensors: Mapping[str, Tensor]) -> None:
        """Erase every weight, then take those of ``tensors`` (names and aliases, converted to the
        type that the model runs in), so that ``run`` answers from them alone.

        Raises StepError where one is missing, unknown or of another shape.
        """


class Session(Protocol):
    """An artifact loaded in a runtime.

    Attributes:
        inputs: Its inputs.
        outputs: Its outputs.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, feed: Feed) -> Answer:
        """Answer a feed. Every input is fed by name, a missing or unknown one is an error, and
        outputs are copied out of memory that the engine owns.
        """

    def placement(self) -> Placement:
        """Tell where the nodes ran, with the evidence; called after at least one run."""

    def details(self) -> Details:
        """Tell anything else for the report (inference precision, versions …), ready for JSON. The
        keys of :class:`CarriedDetails` mean something to mconv.
        """

    def close(self) -> None:
        """Release the engine."""


@runtime_checkable
class TimedSession(Session, Protocol):
    """A session that times its own calls, such as one behind a process or a page."""

    def benchmark(self, feed: Feed, runs: int) -> list[float]:
        """Return the milliseconds of each of ``runs`` calls."""


class CarriedDetails(TypedDict, total=False):
    """Keys of :meth:`Session.details` that mconv reads.

    Attributes:
        load_ms: Milliseconds it took to load the artifact, where that was not the call of load().
        first_run_ms: Milliseconds of the first call.
        download_bytes: What a page downloads, compressed.
        runtime_bytes: What of it is the runtime's.
    """

    load_ms: float
    first_run_ms: float
    download_bytes: int
    runtime_bytes: int


def read_carried(details: Mapping[str, object]) -> CarriedDetails:
    """Return what mconv reads of a session's details; values of another type are left out."""
    carried: CarriedDetails = {}
    if isinstance(load_ms := details.get("load_ms"), int | float):
        carried["load_ms"] = float(load_ms)
    if isinstance(first_run_ms := details.get("first_run_ms"), int | float):
        carried["first_run_ms"] = float(first_run_ms)
    if isinstance(download_bytes := details.get("download_bytes"), int):
        carried["download_bytes"] = download_bytes
    if isinstance(runtime_bytes := details.get("runtime_bytes"), int):
        carried["runtime_bytes"] = runtime_bytes
    return carried


class MixedLayer(TypedDict):
    """A layer of mixed.json.

    Attributes:
        bits: The bits of each weight.
        kind: The operator.
        role: What the layer does in the model.
        elements: The number of its weights.
        error: What each width costs (:class:`mconv.manifest.schema.MixedLayer`).
    """

    bits: int
    kind: NotRequired[str]
    role: NotRequired[str]
    elements: NotRequired[int]
    error: NotRequired[dict[str, float]]


class MixedConfig(TypedDict):
    """The content of mixed.json: what a quantizer does to each layer.

    Attributes:
        version: The version of the format.
        quantizer: The quantizer's name.
        options: Its options.
        layers: The layers by the names of their weights.
    """

    version: int
    quantizer: str
    options: NotRequired[Options]
    layers: Mapping[str, MixedLayer]


# Functions of sources


class DetectSource(Protocol):
    """The function ``detect`` of a source."""

    def __call__(self, path: Path) -> bool:
        """Tell whether ``path`` is a model of this format, by its names and first bytes alone."""


class ExportSource(Protocol):
    """The function ``export`` of a source."""

    def __call__(self, config: SourceConfig, out: Path) -> ExportInfo:
        """Write ``out/model.onnx``. Raises SourceError where the model cannot be loaded, and
        UnsupportedError where ONNX cannot express it.
        """


class LoadSource(Protocol):
    """The function ``load`` of a source."""

    def __call__(self, config: SourceConfig) -> Model:
        """Load the model in its own framework. Raises SourceError."""


class ListSourceFiles(Protocol):
    """The function ``files`` of a source."""

    def __call__(self, config: SourceConfig) -> Sequence[Path]:
        """List the files that the model is made of; a change of one redoes its steps."""


class CheckSource(Protocol):
    """The function ``check`` of a source."""

    def __call__(self, config: SourceConfig) -> None:
        """Raise SourceError or UnsupportedError for what can be known without the framework."""


class ListParts(Protocol):
    """The function ``parts`` of a source."""

    def __call__(self, config: SourceConfig) -> tuple[str, ...]:
        """Name the parts of a model that is several (``encoder``, ``decoder`` …). ``export`` and
        ``load`` are then called for each, with ``config.part`` set.
        """


class MakePrompts(Protocol):
    """The function ``prompts`` of a source."""

    def __call__(self, config: SourceConfig) -> list[dict[str, np.ndarray]]:
        """Return first feeds of a model that writes text, and under ``tokens`` what the framework
        itself makes of each, greedily: int64 [rows, steps].
        """


class Generate(Protocol):
    """The function ``generate`` of a source."""

    def __call__(
        self, config: SourceConfig, run: Mapping[str, Call], prompt: Feed, count: int
    ) -> np.ndarray:
        """Make ``count`` tokens with an artifact, without the framework: int64 [rows, count].
        ``run`` holds a function a part, under ``""`` that of a model that is one.
        """


class ImportsCode(Protocol):
    """The function ``imports_code`` of a source."""

    def __call__(self, options: Options) -> bool:
        """Tell whether the options name code of the repository. Of a model without a manifest, that
        is looked for from the folder that mconv is run in.
        """


class ListImports(Protocol):
    """The function ``imports`` of a source."""

    def __call__(self, config: SourceConfig) -> Sequence[str]:
        """Name the modules, without what is inside of them, that the options need to be installed
        where the model is run: those that the repository, from its folder and
        ``config.pythonpath``, does not have itself. Nothing is imported.
        """


class OpenWeights(Protocol):
    """The function ``weights`` of a source."""

    def __call__(self, config: SourceConfig, part: str | None) -> WeightedModel:
        """Open the model, or a part of it, with its weights by name. Raises UnsupportedError for a
        part that there is not.
        """


class ListDevices(Protocol):
    """The function ``devices`` of a source or a runtime."""

    def __call__(self) -> Sequence[Device]:
        """Tell what the engine finds on this machine, and what ran."""


# Functions of optimizers and quantizers


class OptimizeGraph(Protocol):
    """The function ``optimize`` of an optimizer."""

    def __call__(self, model: Path, out: Path, *, level: str) -> Remarks:
        """Write the ONNX file ``out`` from ``model``."""


class QuantizeGraph(Protocol):
    """The function ``quantize`` of a quantizer."""

    def __call__(
        self,
        model: Path,
        out: Path,
        *,
        precision: str,
        options: Options,
        calibration: Sequence[Feed] | None,
    ) -> Remarks:
        """Write the ONNX file ``out`` with fewer bits. ``calibration`` is there where the plug-in
        says ``CALIBRATION = True``. Raises UnsupportedError where there is nothing to quantize.
        """


class ConfigureLayers(Protocol):
    """The function ``configure`` of a quantizer."""

    def __call__(
        self,
        model: Path,
        *,
        precision: str,
        options: Options,
        calibration: Sequence[Feed] | None,
    ) -> MixedConfig:
        """Say what would be done to each layer, as mixed.json holds it, for a person to change."""


class PreviewPrecisions(Protocol):
    """The function ``preview`` of a quantizer."""

    def __call__(
        self, model: Path, *, calibration: Sequence[Feed], held_out: Sequence[Feed]
    ) -> Mapping[str, object]:
        """Say what would come of each precision, quickly
        (:class:`mconv.engine.advisor.Preview`).
        """


# Functions of targets


class WriteArtifact(Protocol):
    """The function ``write`` of a target."""

    def __call__(
        self,
        model: Path,
        out: Path,
        *,
        precision: str,
        options: Options,
        name: str,
        calibration: Sequence[Feed] | None,
    ) -> ModelInfo:
        """Write the target's files into the folder ``out``.

        ``model`` is an ONNX file; of a target that ``ACCEPTS = ("weights",)`` the folder of
        :mod:`mconv.weights`. ``name`` is the model's, for packages that carry one. ``calibration``
        is there for the precisions in ``CALIBRATED``. Raises UnsupportedError where the target
        cannot express the model.
        """


class CheckOptions(Protocol):
    """The function ``check`` of a target."""

    def __call__(self, *, precision: str, options: Options, method: str | None) -> None:
        """Raise UnsupportedError for options that do not go together; ``method`` is the quantizer
        that the manifest chose.
        """


class FixedSizes(Protocol):
    """The function ``sizes`` of a target."""

    def __call__(self, options: Options) -> Sequence[Mapping[str, int]]:
        """Return the sizes of free axes that the options fix, by name: a mapping a shape that the
        artifact is made for. The reference is taken in each.
        """


class DeliveredPart(Protocol):
    """The function ``part`` of a target."""

    def __call__(self, options: Options) -> str | None:
        """Return the part of a model of several that the options deliver; None is the whole."""


class ReadArtifact(Protocol):
    """The function ``read`` of a target."""

    def __call__(
        self, directory: Path, *, options: Options
    ) -> tuple[Mapping[str, Tensor], Details]:
        """Read back the tensors of an artifact of weights, under the source's names, and details
        for the report.
        """


class ImpliedPrecision(Protocol):
    """The function ``implied_precision`` of a target."""

    def __call__(self, options: Options) -> str | None:
        """Return the precision that the options alone mean, where none is written."""


# Functions of runtimes and formats


class HasPrograms(Protocol):
    """The function ``present`` of a runtime."""

    def __call__(self) -> bool:
        """Tell, quickly and without the engine, whether the programs that it needs beside packages
        of Python are on this machine, such as a browser.
        """


class LoadArtifact(Protocol):
    """The function ``load`` of a runtime."""

    def __call__(
        self, directory: Path, *, options: Options, threads: int, precision: str
    ) -> Session:
        """Load the artifact in ``directory``. ``options`` are the target's and the runtime's.
        Raises StepError where the engine refuses it.
        """


class WantedThreads(Protocol):
    """The function ``threads`` of a runtime."""

    def __call__(self, options: Options) -> int | None:
        """Return how many threads the options ask for; None leaves it to the machine."""


class ChooseTool(Protocol):
    """The function ``tool`` of a runtime."""

    def __call__(self, options: Options) -> str:
        """Return the tool whose packages it needs to run with these options; an empty name is
        mconv's own packages.
        """


class FindAccelerator(Protocol):
    """The function ``accelerator`` of a runtime."""

    def __call__(self, options: Options) -> str | None:
        """Return the name of the device, beside the processor, that these options ask for, and None
        where they ask for none. It is quick, and loads no engine. Raises UnsupportedError, with the
        reason, where this machine has no such device.
        """


class OpenPeers(Protocol):
    """The function ``peers`` of a runtime."""

    def __call__(
        self, session: Session, model: Path, threads: int
    ) -> AbstractContextManager[Mapping[str, Callable[[Feed, int], list[float]]]]:
        """Open other ways to run the fp32 graph ``model``, to be measured beside the artifact:
        name → a function that returns the milliseconds of each of so many calls.
        """


class SniffFile(Protocol):
    """The function ``sniff`` of a format."""

    def __call__(self, path: Path, head: bytes) -> bool:
        """Tell whether ``path`` is of this format, a damaged one included. ``head`` is its first
        4 KiB, none of a folder.
        """


class InspectFile(Protocol):
    """The function ``inspect`` of a format."""

    def __call__(self, path: Path) -> Facts:
        """Tell what the file says of itself, without an engine. Raises SourceError for damage, with
        the place where it is.
        """


class CheckFile(Protocol):
    """The function ``check`` of a format."""

    def __call__(self, path: Path) -> Sequence[str]:
        """Look at the whole structure and return a sentence a problem. It may use an engine, since
        it runs in a child process.
        """


# Defaults


def list_defaults(options: Schemas) -> dict[str, object]:
    """Return the default value of each option that has one."""
    return {name: schema["default"] for name, schema in options.items() if "default" in schema}


def list_all_files(config: SourceConfig) -> Sequence[Path]:
    """Return the source's file, or all of its folder's: the default of ``files()``."""
    path = Path(config.path)
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def accept_source(config: SourceConfig) -> None:
    """Know of nothing that is wrong: the default of a source's ``check()``."""


def name_no_parts(config: SourceConfig) -> tuple[str, ...]:
    """Return no parts, since the model is one: the default of ``parts()``."""
    return ()


def import_no_code(options: Options) -> bool:
    """Return False, since the model is files alone: the default of ``imports_code()``."""
    return False


def import_no_modules(config: SourceConfig) -> Sequence[str]:
    """Return no modules, since the options name none: the default of ``imports()``."""
    return ()


def accept_options(*, precision: str, options: Options, method: str | None) -> None:
    """Accept all options together: the default of a target's ``check()``."""


def fix_no_sizes(options: Options) -> Sequence[Mapping[str, int]]:
    """Return no sizes, so that free axes stay free: the default of ``sizes()``."""
    return ()


def deliver_whole(options: Options) -> str | None:
    """Return None, the whole model: the default of ``part()``."""
    return None


def need_no_programs() -> bool:
    """Return True, since packages of Python are enough: the default of ``present()``."""
    return True


def want_any_threads(options: Options) -> int | None:
    """Return None, as many as the machine has: the default of ``threads()``."""
    return None


def want_no_accelerator(options: Options) -> str | None:
    """Return None, since the processor is enough: the default of ``accelerator()``."""
    return None


# What mconv reads of the JSON Schema of an option.
OPTION_KEYWORDS = frozenset(
    {
        *("type", "enum", "minimum", "maximum", "items", "additionalProperties"),
        *("description", "default"),
    }
)
OPTION_TYPES = ("string", "integer", "number", "boolean", "array", "object")


# Plug-ins


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """What every plug-in has.

    Attributes:
        name: Its file's name.
        summary: The first paragraph of its docstring.
        module: The module it lies in.
        tools: Distributions whose versions enter the keys of its steps.
        preload: Modules that its steps import first; they are imported once a run.
        environment: The tool whose packages its steps need (:mod:`mconv.environments.tools`);
            empty where mconv's own are enough.
    """

    name: str
    summary: str
    module: str
    tools: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    environment: str = ""


@dataclass(frozen=True, kw_only=True)
class Source(Plugin):
    """A format that models come in.

    Attributes:
        detect: Whether a path is of this format.
        export: Writes the model as ONNX.
        load: Loads it in its own framework.
        files: The files that it is made of.
        check: Refuses what can be known to be wrong without the framework.
        parts: The parts of a model that is several.
        imports_code: Whether options name code of the repository.
        imports: The modules that options need to be installed.
        prompts: First feeds of a model that writes text.
        generate: The loop that makes tokens with an artifact.
        weights: Opens the model with its weights by name.
        devices: What the framework can run on here.
        options: The JSON Schema of each option.
        requires: Requirements of its steps in an environment of the model's, beside those that
            every worker has (:data:`mconv.environments.models.WORKER`).
        instead_of_path: Options that name code which makes the whole model. Where one of them is
            given the manifest may leave out ``path``, and ``config.path`` is empty.
    """

    detect: DetectSource
    export: ExportSource
    load: LoadSource
    files: ListSourceFiles = list_all_files
    check: CheckSource = accept_source
    parts: ListParts = name_no_parts
    imports_code: ImportsCode = import_no_code
    imports: ListImports = import_no_modules
    prompts: MakePrompts | None = None
    generate: Generate | None = None
    weights: OpenWeights | None = None
    devices: ListDevices | None = None
    options: Schemas = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    instead_of_path: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Optimizer(Plugin):
    """A pass from ONNX to ONNX that changes no answer.

    Attributes:
        optimize: Writes the graph.
        levels: The levels of `optimize:` that it takes part in.
        order: Passes run in ascending order.
        domains: Operator domains that its output may need.
    """

    optimize: OptimizeGraph
    levels: tuple[str, ...]
    order: int
    domains: frozenset[str] = ONNX_DOMAIN


@dataclass(frozen=True, kw_only=True)
class Quantizer(Plugin):
    """A pass from ONNX to ONNX of fewer bits.

    Attributes:
        quantize: Writes the graph.
        precisions: What it makes.
        configure: Says what would be done to each layer.
        preview: Says what would come of each precision.
        stored_bits: What a weight takes by precision, scales included.
        activations: The precisions that round activations, too.
        options: The JSON Schema of each option.
        calibration: It is given calibration feeds.
        calibration_option: The option that takes the manifest's `calibration: {method}`.
        domains: Operator domains that its output may need.
    """

    quantize: QuantizeGraph
    precisions: tuple[str, ...]
    configure: ConfigureLayers | None = None
    preview: PreviewPrecisions | None = None
    stored_bits: Mapping[str, float] = field(default_factory=dict)
    activations: tuple[str, ...] = ()
    options: Schemas = field(default_factory=dict)
    calibration: bool = False
    calibration_option: str | None = None
    domains: frozenset[str] = ONNX_DOMAIN


@dataclass(frozen=True, kw_only=True)
class Target(Plugin):
    """A format to deliver.

    Attributes:
        write: Writes the files.
        precisions: Each precision with the quantizer that makes it from the fp32 graph, or None
            where ``write`` is given that graph as it is.
        check: Refuses options that do not go together.
        sizes: The sizes of free axes that the options fix.
        part: The part of the model that the options deliver.
        read: Reads back what a target of weights wrote.
        implied_precision: The precision that the options alone mean.
        options: The JSON Schema of each option.
        runtimes: What verifies it; the first is used.
        accepts: ``("onnx",)``, or ``("weights",)`` of a target that takes weights by name. The
            source then runs what ``read`` gives back, and the target has no runtimes.
        domains: Operator domains that it takes.
        static: Every axis must have a size.
        optimizes: Its converter does what the optimizers would, so it is given the graph as
            exported.
        calibrated: The precisions for which ``write`` is given calibration feeds.
        stored_bits: What a weight takes in the precisions that ``write`` itself makes.
    """

    write: WriteArtifact
    precisions: Mapping[str, str | None]
    check: CheckOptions = accept_options
    sizes: FixedSizes = fix_no_sizes
    part: DeliveredPart = deliver_whole
    read: ReadArtifact | None = None
    implied_precision: ImpliedPrecision | None = None
    options: Schemas = field(default_factory=dict)
    runtimes: tuple[str, ...] = ()
    accepts: tuple[str, ...] = ("onnx",)
    domains: frozenset[str] = ONNX_DOMAIN
    static: bool = False
    optimizes: bool = False
    calibrated: tuple[str, ...] = ()
    stored_bits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Runtime(Plugin):
    """What can run an artifact on samples.

    Attributes:
        load: Loads an artifact.
        threads: How many threads the options ask for.
        tool: The tool that options need, where it is not ``environment`` for all of them.
        accelerator: The device that options ask for.
        present: Whether the programs that it needs are on this machine.
        peers: Opens other ways to run the fp32 graph, to be measured beside it.
        devices: What the engine can run on here.
        options: The JSON Schema of each option; they say how artifacts are run, and change none.
        service: Its workers share a helper process (:mod:`mconv.workers.service`), whose address
            they find in the environment variable of this name.
    """

    load: LoadArtifact
    threads: WantedThreads = want_any_threads
    tool: ChooseTool | None = None
    accelerator: FindAccelerator = want_no_accelerator
    present: HasPrograms = need_no_programs
    peers: OpenPeers | None = None
    devices: ListDevices | None = None
    options: Schemas = field(default_factory=dict)
    service: str | None = None

    def choose_tool(self, options: Options) -> str:
        """Return the tool whose packages it needs to run with these options."""
        return self.tool(options) if self.tool is not None else self.environment


@dataclass(frozen=True, kw_only=True)
class Format(Plugin):
    """A kind of file or folder, known by its content.

    Attributes:
        sniff: Whether a file is of this kind.
        inspect: What a file says of itself.
        check: What is wrong with its whole structure.
        suffixes: What such a file is usually called.
        order: Formats of a lower order are asked first.
    """

    sniff: SniffFile
    inspect: InspectFile
    suffixes: tuple[str, ...]
    check: CheckFile | None = None
    order: int = 0


# The functions of each family by name; the rest of a family's value is constants.
FUNCTIONS: dict[type[Plugin], dict[str, type]] = {
    Source: {
        "detect": DetectSource,
        "export": ExportSource,
        "load": LoadSource,
        "files": ListSourceFiles,
        "check": CheckSource,
        "parts": ListParts,
        "imports_code": ImportsCode,
        "imports": ListImports,
        "prompts": MakePrompts,
        "generate": Generate,
        "weights": OpenWeights,
        "devices": ListDevices,
    },
    Optimizer: {"optimize": OptimizeGraph},
    Quantizer: {
        "quantize": QuantizeGraph,
        "configure": ConfigureLayers,
        "preview": PreviewPrecisions,
    },
    Target: {
        "write": WriteArtifact,
        "check": CheckOptions,
        "sizes": FixedSizes,
        "part": DeliveredPart,
        "read": ReadArtifact,
        "implied_precision": ImpliedPrecision,
    },
    Runtime: {
        "load": LoadArtifact,
        "threads": WantedThreads,
        "tool": ChooseTool,
        "accelerator": FindAccelerator,
        "present": HasPrograms,
        "peers": OpenPeers,
        "devices": ListDevices,
    },
    Format: {"sniff": SniffFile, "inspect": InspectFile, "check": CheckFile},
}


def build_plugin(kind: type[Plugin], name: str, module: ModuleType) -> Plugin:
    """Return the value of the plug-in that ``module`` is: functions under their names, constants in
    upper case, defaults for what it leaves out.

    Raises MconvError where it lacks what its family must define, or a constant is of another type.
    """
    docstring = (module.__doc__ or "").strip().partition("\n\n")[0]
    values: dict[str, object] = {
        "name": name,
        "module": module.__name__,
        "summary": getattr(module, "SUMMARY", " ".join(docstring.split())),
    }
    functions = FUNCTIONS[kind]
    types = get_type_hints(kind)
    for attribute, spec in kind.__dataclass_fields__.items():
        if attribute in values:
            continue
        written = attribute if attribute in functions else attribute.upper()
        if hasattr(module, written):
            value = getattr(module, written)
            values[attribute] = value
            if attribute not in functions:
                values[attribute] = read_constant(module.__name__, written, value, types[attribute])
        elif spec.default is spec.default_factory:  # both MISSING: the plug-in must write it
            shown = f"{written}()" if attribute in functions else written
            raise MconvError(
                f"plug-in {module.__name__} has no {shown}",
                hint="docs/plugins.md lists what a plug-in of this family must define",
            )
    return kind(**values)  # type: ignore[arg-type]  # check_signatures looks at the functions


def read_constant(module: str, name: str, value: object, wanted: Any) -> object:
    """Return a constant of a plug-in in the type of its family's field, a list as a tuple.

    Raises MconvError where it is of another type, as a text is in the place of a tuple of one.
    """
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as problem:
        shown = wanted.__name__ if isinstance(wanted, type) else str(wanted)
        shown = shown.replace("collections.abc.", "").replace("typing.", "")
        raise MconvError(
            f"plug-in {module}: {name} must be {shown}, not {one_line(repr(value), 100)}",
            hint='a tuple of one text ends with a comma: ("onnxruntime",)'
            if isinstance(value, str)
            else None,
        ) from problem


def check_plugin(plugin: Plugin) -> None:
    """Raise MconvError where ``plugin`` does not keep its family's contract."""
    check_signatures(plugin)
    check_options(plugin)


def check_signatures(plugin: Plugin) -> None:
    """Raise MconvError where a function of ``plugin`` cannot be called as its family's are."""
    for name, protocol in FUNCTIONS[type(plugin)].items():
        function = getattr(plugin, name)
        if function is None:
            continue
        if (problem := find_signature_problem(function, protocol)) is not None:
            raise MconvError(
                f"{plugin.module}.{name}() {problem}; it is called as "
                f"{name}{read_signature(protocol)}",
                hint="docs/plugins.md shows every function with its signature",
            )


def check_options(plugin: Plugin) -> None:
    """Raise MconvError where the schema of an option says what mconv would not hold a value to."""
    options: Schemas = getattr(plugin, "options", {})
    for name, schema in options.items():
        where = f"plug-in {plugin.module}: the option {name!r}"
        if not isinstance(schema.get("description"), str):
            raise MconvError(f"{where} has no description")
        unchecked = sorted(schema.keys() - OPTION_KEYWORDS)
        if unchecked or schema.get("type", "string") not in OPTION_TYPES:
            wrong = f"keyword {unchecked[0]!r}" if unchecked else f"type {schema['type']!r}"
            raise MconvError(
                f"{where} has the {wrong}, which mconv does not check",
                hint=f"keywords are {', '.join(sorted(OPTION_KEYWORDS))}; type is one of "
                f"{', '.join(OPTION_TYPES)}",
            )


def read_signature(protocol: type) -> inspect.Signature:
    """Return how a function of the protocol is called."""
    signature = inspect.signature(protocol.__call__)  # type: ignore[operator]
    parameters = [p for p in signature.parameters.values() if p.name != "self"]
    return signature.replace(parameters=parameters)


def find_signature_problem(function: Callable[..., object], protocol: type) -> str | None:
    """Return what keeps ``function`` from being called as the protocol says, or None.

    Positional parameters may have other names; one by keyword must have its own.
    """
    try:
        own = inspect.signature(function)
    except (TypeError, ValueError):  # built in: it has no signature to look at
        return None
    positional: list[object] = []
    named: dict[str, object] = {}
    for parameter in read_signature(protocol).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = None
        else:
            positional.append(None)
    try:
        own.bind(*positional, **named)
    except TypeError as problem:
        return f"does not fit: {problem}"
    return None

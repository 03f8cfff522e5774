"""PyTorch: weights with a factory, TorchScript archives, and programs of torch.export (.pt2)."""

from __future__ import annotations

import inspect
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv.errors import SourceError, UsageError
from mconv.proof.user_samples import SUFFIX, list_files, read_samples
from mconv.sources import _factory, _torch, _weights
from mconv.values import Device, ExportInfo, SourceConfig, TensorSpec

if TYPE_CHECKING:
    import numpy as np

ENVIRONMENT = "pytorch"
REQUIRES = ("torch>=2.6", "onnxscript>=0.6.2", "safetensors>=0.4")
TOOLS = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "safetensors")
PRELOAD = ("torch", "torch.onnx", "onnx", "onnx_ir")
OPTIONS = {
    "factory": {
        "type": "string",
        "description": "module:function, or file.py:function, that builds the module: for the "
        "weights of `path`, or with its own",
    },
    "translations": {
        "type": "string",
        "description": "module:function, or file.py:function, that returns {'library::operator': "
        "onnxscript function}",
    },
}
INSTEAD_OF_PATH = ("factory",)
SUFFIXES = {".pt", ".pth", ".pt2", ".safetensors", ".bin"}
MAX_HEADER = 100_000_000  # the limit of the safetensors format


def kind(path: Path) -> str | None:
    """``torchscript``, ``program`` (.pt2), ``state`` (a pickle of tensors) or ``safetensors``, by
    content; None for others."""
    if not path.is_file() or path.suffix not in SUFFIXES:
        return None
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = {n.partition("/")[2] for n in archive.namelist()} | set(archive.namelist())
        if "constants.pkl" in names:
            return "torchscript"
        if (
            "archive_format" in names
            or "serialized_exported_program.json" in names
            or any(n.startswith("models/") for n in names)
        ):
            return "program"
        return "state" if "data.pkl" in names else None
    with path.open("rb") as file:
        head = file.read(9)
    if (
        len(head) == 9
        and head[8:9] == b"{"
        and 2 <= int.from_bytes(head[:8], "little") <= min(MAX_HEADER, path.stat().st_size - 8)
    ):
        return "safetensors"
    return "state" if head[:1] == b"\x80" else None


def _kind_of(config: SourceConfig) -> str | None:
    """Return the kind of the model's file; ``code`` where the factory makes the weights, too: there
    is no file, or it is the factory's own."""
    if not config.path or (config.path.endswith(".py") and config.options.get("factory")):
        return "code"
    return kind(Path(config.path))


def detect(path: Path) -> bool:
    """Return whether it is a TorchScript archive, an exported program or weights of PyTorch, by
    suffix and content."""
    return kind(path) is not None


def imports_code(options: Mapping[str, Any]) -> bool:
    """Return whether functions of the repository build the model or translate its operators."""
    return bool(options.get("factory") or options.get("translations"))


def imports(config: SourceConfig) -> Sequence[str]:
    """Return the modules of the options that must be installed."""
    return _factory.list_foreign(config, "factory", "translations")


def check(config: SourceConfig) -> None:
    """Raises UsageError where weights have no factory, or the factory cannot be found."""
    file_kind = _kind_of(config)
    if file_kind is None:
        raise UsageError(
            f"{Path(config.path).name} is not a PyTorch file",
            hint="mconv reads .pt, .pth, .pt2 and .safetensors",
        )
    factory = config.options.get("factory")
    if file_kind in ("state", "safetensors", "code"):
        if not factory:
            raise UsageError(
                f"{Path(config.path).name} holds only weights; mconv needs the code that builds "
                "the module",
                hint="add `factory: module:function`, or save a TorchScript or torch.export "
                "(.pt2) file",
            )
        _factory.check_option(config, "factory")
    if config.options.get("translations"):
        _factory.check_option(config, "translations")
    if file_kind != "program" and not config.inputs:
        raise UsageError(
            "the model's inputs are not known",
            hint="declare them: `inputs: {image: {shape: [batch, 3, 224, 224]}}`",
        )


def files(config: SourceConfig) -> Sequence[Path]:
    """The weights, the modules of the options and every module of the repository that they import,
    found without running any; and the user's samples, which the module is traced with."""
    own = [Path(config.path)] if config.path else []
    own += _list_arrays(config)
    return [*own, *_factory.list_files(config, "factory", "translations")]


def _list_arrays(config: SourceConfig) -> list[Path]:
    """Return the files of the user's samples, where they hold arrays."""
    files = list_files([Path(path) for path in config.samples]) if config.samples else []
    return files if all(path.suffix == SUFFIX for path in files) else []


def _state(path: Path, file_kind: str) -> dict[str, Any]:
    """A state dict, loaded without running code. Raises SourceError for a pickled module or a
    damaged file."""
    import torch

    if file_kind == "safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(str(path)))
        except (SafetensorError, json.JSONDecodeError) as problem:
            raise SourceError(
                f"{path.name} is not a complete safetensors file: {problem}", hint="save it again"
            ) from problem
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # unpickling fails in many ways
        reason = " ".join(str(problem).split())
        if "weights_only" in reason.lower() or "Unsupported" in reason:
            raise SourceError(
                f"{path.name} holds more than tensors: loading it would run code, which mconv "
                "does not do",
                hint="save `module.state_dict()` instead and name a factory",
            ) from problem
        raise SourceError(
            f"{path.name} cannot be read: {reason[:400]}", hint="save it again"
        ) from problem
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise SourceError(
            f"{path.name} holds {type(state).__name__}, not a state dict",
            hint="save `module.state_dict()`",
        )
    return state


def _module(config: SourceConfig) -> tuple[Any, tuple[TensorSpec, ...]]:
    import torch

    path = Path(config.path)
    file_kind = _kind_of(config)
    if file_kind == "torchscript":
        try:
            script = torch.jit.load(str(path), map_location="cpu")
        except RuntimeError as problem:
            reason = " ".join(str(problem).split())[:400]
            raise SourceError(
                f"{path.name} cannot be loaded by TorchScript: {reason}",
                hint="is the file complete?",
            ) from problem
        order = [a.name for a in script.forward.schema.arguments]
        if not {s.name for s in config.inputs} <= set(order):
            return script, config.inputs
        # it is called and exported in order
        return script, tuple(sorted(config.inputs, key=lambda s: order.index(s.name)))
    if file_kind == "program":
        try:
            program = torch.export.load(str(path))
        except Exception as problem:  # torch.export raises many kinds
            raise SourceError(
                f"{path.name} cannot be loaded by torch.export: "
                f"{' '.join(str(problem).split())[:400]}"
            ) from problem
        return _positional(program, path.name), config.inputs or _program_inputs(program)
    module = _factory.import_function(config, "factory")()
    if not isinstance(module, torch.nn.Module):
        raise SourceError(
            f"the factory returned {type(module).__name__}, not a torch.nn.Module",
            hint="return the module",
        )
    if file_kind == "code":
        return module, config.inputs
    try:
        module.load_state_dict(_state(path, file_kind or ""))
    except RuntimeError as problem:
        reason = " ".join(str(problem).split())[:600]
        raise SourceError(
            f"{path.name} does not fit the factory's module: {reason}",
            hint="is it the file of another version, or of another module?",
        ) from problem
    return module, config.inputs


def _positional(program: Any, name: str) -> Any:
    """The module of a program, taking keyword inputs by position after the others. Raises
    SourceError for nested inputs."""
    import torch

    args, kwargs = program.example_inputs or ((), {})
    inputs = program.graph_signature.user_inputs
    if (args or kwargs) and len(args) + len(kwargs) != len(inputs):
        raise SourceError(
            f"{name} takes nested inputs ({', '.join(map(str, inputs))})",
            hint="export it again with one argument for each tensor",
        )
    if not kwargs:
        return program.module()

    class Positional(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.program = program.module()

        def forward(self, *tensors: Any) -> Any:
            return self.program(
                *tensors[: len(args)], **dict(zip(kwargs, tensors[len(args) :], strict=True))
            )

    return Positional()


def _translations(config: SourceConfig) -> dict[Any, Any]:
    """Custom operators and their onnxscript functions. Raises SourceError for what is no such
    mapping."""
    import torch

    if not config.options.get("translations"):
        return {}
    declared = _factory.import_function(config, "translations")()
    if not isinstance(declared, dict) or not all(callable(f) for f in declared.values()):
        raise SourceError(
            f"{config.options['translations']} did not return a mapping of operators to functions",
            hint="for example {'mylib::twist': twist}, where twist is written with "
            "onnxscript.opset20",
        )
    translations = {}
    for name, function in declared.items():
        operator: Any = name
        if isinstance(name, str):
            library, _, rest = name.partition("::")
            operator = (
                getattr(getattr(torch.ops, library), rest.partition(".")[0], None) if rest else None
            )
            if operator is None:
                raise SourceError(
                    f"there is no operator {name!r} to translate",
                    hint="import its library in the same module",
                )
            operator = getattr(operator, rest.partition(".")[2] or "default")
        translations[operator] = function
    return translations


def _program_inputs(program: Any) -> tuple[TensorSpec, ...]:
    """Inputs of an exported program from its own signature; symbolic sizes become free axes."""
    specs = []
    for node in program.graph.nodes:
        if node.op != "placeholder" or node.name not in program.graph_signature.user_inputs:
            continue
        value = node.meta["val"]
        shape: list[int | str] = []
        for axis, dim in enumerate(value.shape):
            known = str(dim).isdigit()
            shape.append(int(dim) if known else ("batch" if axis == 0 else str(dim)))
        specs.append(
            TensorSpec(
                name=node.name, dtype=str(value.dtype).removeprefix("torch."), shape=tuple(shape)
            )
        )
    return tuple(specs)


def load(config: SourceConfig) -> _torch.TorchModel:
    """The module in inference mode. Inputs are bound by name where forward() has all of the names,
    else in order."""
    import torch

    torch.manual_seed(0)
    # registers the operators, before a file that needs them is loaded
    translations = _translations(config)
    module, inputs = _module(config)
    # its placeholders are positional, whatever they are called
    if _kind_of(config) == "program":
        return _torch.TorchModel(module, inputs, by_name=False, translations=translations)
    forward = getattr(module, "forward", module)
    try:
        parameters = set(inspect.signature(forward).parameters)
    except (TypeError, ValueError):
        parameters = set()
    named = {spec.name for spec in inputs} <= parameters
    given: Sequence[Mapping[str, np.ndarray]] = ()
    if _list_arrays(config):
        given = read_samples([Path(path) for path in config.samples], inputs, ()).feeds
    return _torch.TorchModel(module, inputs, by_name=named, translations=translations, given=given)


def export(config: SourceConfig, out: Path) -> ExportInfo:
    """Write ``model.onnx`` by PyTorch's exporters.

    Raises UnsupportedError with each exporter's reason where none gives a right graph.
    """
    return _torch.export(load(config), out)


def weights(config: SourceConfig, part: str | None) -> _weights.TorchWeights:
    """The module's state dict, in the dtypes of the weights file."""
    path = Path(config.path)
    file_kind = _kind_of(config) or ""
    raw = _state(path, file_kind) if file_kind in ("state", "safetensors") else {}
    return _weights.open_pytorch(load(config), part, raw)


def devices() -> list[Device]:
    """CUDA, ROCm, Metal and Intel's XPU as the torch that is installed sees them: available where a
    sum ran there."""
    import torch

    hip = torch.version.hip
    build = f"torch {torch.__version__}"
    cards = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    mps, xpu = torch.backends.mps, getattr(torch, "xpu", None)
    has_xpu = xpu is not None and xpu.is_available()
    kinds: tuple[
        tuple[str, str, Any, bool, list[str]], ...
        # name, torch's own device, whether this build has it, whether it finds one, what it found
    ] = (
        ("cuda", "cuda", None if hip else torch.version.cuda, bool(cards) and not hip, cards),
        ("rocm", "cuda", hip, bool(cards) and bool(hip), cards),
        ("mps", "mps", "built in" if mps.is_built() else None, mps.is_available(), []),
        (
            "xpu",
            "xpu",
            getattr(torch.version, "xpu", None),
            has_xpu,
            [xpu.get_device_name(0)] if has_xpu and xpu else [],
        ),
    )
    listed = []
    for name, device, built, ready, names in kinds:
        reason = _why_not(device) if ready else f"torch finds no {name.upper()} device"
        reason = reason if built else f"this build of torch has no {name.upper()}"
        details = {"version": built, "cards": names} if ready else {}
        words = ", ".join(names) or build
        listed.append(
            Device(
                engine="torch",
                name=name,
                available=reason is None,
                description=words,
                reason=reason,
                details=details,
            )
        )
    return listed


def _why_not(device: str) -> str | None:
    """None where torch adds on ``device``, else its words."""
    import torch

    try:
        answer = float((torch.ones(4, device=device) + 1).sum().cpu())
    except Exception as problem:  # drivers raise RuntimeError and classes of their own
        return f"it computes nothing here: {' '.join(str(problem).split())[:300]}"
    return None if answer == 8.0 else "a sum came out wrong on it"

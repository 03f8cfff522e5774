"""OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from mconv.errors import StepError, UnsupportedError, one_line
from mconv.samples import check_feed
from mconv.values import Device, Placement, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import openvino

    from mconv.contracts import Feed

ENVIRONMENT = "openvino"
TOOLS = ("openvino",)
FILE = "openvino_model.xml"
DEVICE = "CPU"


class RunOptions(TypedDict, total=False):
    """The options of a run; ``OPTIONS`` says what each does."""

    threads: int
    hint: str
    inference_precision: str
    dynamic_quantization: int


DEFAULTS: RunOptions = {
    "hint": "latency",
    "inference_precision": "f32",
    "dynamic_quantization": 32,
}
OPTIONS: dict[str, dict[str, object]] = {
    "threads": {
        "type": "integer",
        "minimum": 1,
        "description": "threads of one inference, and of the source framework it is measured "
        "against (default: all cores)",
    },
    "hint": {
        "enum": ["latency", "throughput"],
        "default": DEFAULTS["hint"],
        "description": "one inference as quick as can be, or several streams side by side (the "
        "latency measured is that of one)",
    },
    "inference_precision": {
        "enum": ["f32", "bf16", "f16"],
        "default": DEFAULTS["inference_precision"],
        "description": "what the arithmetic runs in: bf16 and f16 are quicker on processors that "
        "have them, and less exact",
    },
    "dynamic_quantization": {
        "type": "integer",
        "minimum": 0,
        "default": DEFAULTS["dynamic_quantization"],
        "description": "activations that share a scale where they are rounded to 8 bits for "
        "compressed weights; 0: not rounded",
    },
}
# types of layers that compute nothing
PASSIVE = ("Input", "Output", "Parameter", "Result", "Const", "Constant")


class OpenVinoSession:
    """An IR compiled for the CPU, with fp32 inference whatever the weights are stored in, unless
    ``options`` say otherwise.

    On CPUs with bf16 OpenVINO would otherwise infer in bf16 unasked, and the artifact would be
    judged by that.

    Attributes:
        inputs: The network's inputs under the names that the target wrote.
        outputs: The network's outputs under the names that the target wrote.
        version: OpenVINO's.
    """

    def __init__(self, path: Path, threads: int, options: RunOptions | None = None) -> None:
        import openvino

        settings = DEFAULTS | (options or {})
        config = {
            "INFERENCE_PRECISION_HINT": settings["inference_precision"],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": settings["hint"].upper(),
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": settings["dynamic_quantization"],
        }
        core = openvino.Core()
        try:
            network = core.read_model(str(path))
            self.compiled = core.compile_model(network, DEVICE, config)
        except Exception as problem:  # OpenVINO raises plain RuntimeError
            raise UnsupportedError(
                f"OpenVINO cannot load the artifact: {one_line(problem, 800)}"
            ) from problem
        self.request = self.compiled.create_infer_request()
        self.inputs: tuple[TensorSpec, ...] = tuple(
            map(_describe_port, self.compiled.inputs, network.inputs)
        )
        self.outputs: tuple[TensorSpec, ...] = tuple(
            map(_describe_port, self.compiled.outputs, network.outputs)
        )
        self.version: str = openvino.__version__
        self.has_run = False

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Return every output by name, copied out of the request's memory, which the next call
        overwrites.

        Raises StepError for a feed that does not fit, or where OpenVINO fails.
        """
        import numpy as np

        check_feed(self.inputs, feed)
        try:
            self.request.infer(dict(feed), share_inputs=False)
        except Exception as problem:  # OpenVINO raises plain RuntimeError
            raise StepError(f"OpenVINO failed: {one_line(problem, 800)}") from problem
        self.has_run = True
        return {
            spec.name: np.array(self.request.get_output_tensor(i).data)
            for i, spec in enumerate(self.outputs)
        }

    def placement(self) -> Placement:
        """Read the compiled model's own execution devices and its runtime graph, the layers as they
        were executed.

        Raises StepError before a run.
        """
        if not self.has_run:
            raise StepError("placement asked for before a run")
        devices = [str(device) for device in self.compiled.get_property("EXECUTION_DEVICES")]
        types = [_read_layer_type(op) for op in self.compiled.get_runtime_model().get_ordered_ops()]
        layers = [layer_type for layer_type in types if layer_type not in PASSIVE]
        return Placement(
            provider=DEVICE,
            device=DEVICE.lower(),
            nodes=len(layers) if devices == [DEVICE] else 0,
            elsewhere={device: len(layers) for device in devices if device != DEVICE},
            witnesses=("EXECUTION_DEVICES", "runtime model"),
        )

    def details(self) -> dict[str, object]:
        """Return the settings as the compiled model reports them; ``inference_precision`` is what
        the arithmetic ran in."""
        precision = self.compiled.get_property("INFERENCE_PRECISION_HINT")
        name = precision.get_type_name() if hasattr(precision, "get_type_name") else str(precision)
        return {
            "openvino": self.version,
            "inference_precision": name,
            "threads": int(self.compiled.get_property("INFERENCE_NUM_THREADS")),
            "hint": str(self.compiled.get_property("PERFORMANCE_HINT")).rpartition(".")[2].lower(),
            "streams": int(self.compiled.get_property("NUM_STREAMS")),
            "dynamic_quantization": int(
                self.compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE")
            ),
        }

    def close(self) -> None:
        """Release the engine."""
        self.request = None
        self.compiled = None


def _read_layer_type(op: openvino.Node) -> str:
    """Return the type of a layer of a runtime graph, which keeps it beside the operator."""
    info = op.get_rt_info()
    return str(info["layerType"].value if "layerType" in info else op.get_type_name())


def _describe_port(compiled: openvino.ConstOutput, written: openvino.Output) -> TensorSpec:
    """Return a compiled port under the name that was written, of which the target writes one a
    port: where compilation drops a Convert before an output, it adds the name of the tensor that
    came in."""
    names = written.get_names()
    name = min(names) if names else compiled.get_node().get_friendly_name()
    shape: list[int | str] = []
    for axis, dimension in enumerate(compiled.get_partial_shape()):
        shape.append(dimension.get_length() if dimension.is_static else f"{name}_{axis}")
    element = compiled.get_element_type()
    dtype = "bool" if element.get_type_name() == "boolean" else str(element.to_dtype())
    return TensorSpec(name=name, dtype=dtype, shape=tuple(shape))


def threads(options: RunOptions) -> int | None:
    """Return how many threads the options ask for; None leaves it to the machine."""
    return options.get("threads")


def load(directory: Path, *, options: RunOptions, threads: int, precision: str) -> OpenVinoSession:
    """Load an artifact's folder.

    Raises UnsupportedError where OpenVINO refuses it.
    """
    return OpenVinoSession(directory / FILE, threads, options)


def devices() -> list[Device]:
    """List CPU, GPU and NPU: those that OpenVINO finds by their full names and what they compute
    in, and as available where a small graph ran; the others with the reason."""
    import openvino

    core = openvino.Core()
    listed = []
    for name in core.available_devices:
        properties = {
            key: str(core.get_property(name, key))
            for key in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
        }
        reason = _probe_device(core, name)
        listed.append(
            Device(
                engine="openvino",
                name=name,
                available=reason is None,
                description=properties["FULL_DEVICE_NAME"],
                reason=reason,
                details=properties,
            )
        )
    for kind in ("CPU", "GPU", "NPU"):
        if not any(device.name.startswith(kind) for device in listed):
            listed.append(
                Device(
                    engine="openvino",
                    name=kind,
                    available=False,
                    reason="OpenVINO finds no such device or driver",
                )
            )
    return listed


def _probe_device(core: openvino.Core, device: str) -> str | None:
    """Run a small graph on ``device``. Return None where it ran and is right, else the reason."""
    import numpy as np
    import openvino

    try:
        port = openvino.opset13.parameter([2, 8], np.float32)
        network = openvino.Model([openvino.opset13.relu(port)], [port], "probe")
        feed = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)
        output = core.compile_model(network, device)([feed])[0]
    except Exception as problem:  # OpenVINO raises plain RuntimeError
        return f"it runs nothing here: {one_line(problem)}"
    if not np.allclose(output, feed.clip(0), atol=1e-2):
        return "a small graph came out wrong on it"
    return None

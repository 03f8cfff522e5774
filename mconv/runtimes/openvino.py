"""OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv.errors import StepError, UnsupportedError
from mconv.runtimes._feed import check_feed
from mconv.values import Device, Placement, TensorSpec

if TYPE_CHECKING:
    import numpy as np

TOOLS = ("openvino",)
FILE = "openvino_model.xml"
DEVICE = "CPU"
OPTIONS: dict[str, dict[str, Any]] = {
    "threads": {
        "type": "integer",
        "minimum": 1,
        "description": "threads of one inference, and of the source framework it is measured "
        "against (default: all cores)",
    },
    "hint": {
        "enum": ["latency", "throughput"],
        "default": "latency",
        "description": "one inference as quick as can be, or several streams side by side (the "
        "latency measured is that of one)",
    },
    "inference_precision": {
        "enum": ["f32", "bf16", "f16"],
        "default": "f32",
        "description": "what the arithmetic runs in: bf16 and f16 are quicker on processors that "
        "have them, and less exact",
    },
    "dynamic_quantization": {
        "type": "integer",
        "minimum": 0,
        "default": 32,
        "description": "activations that share a scale where they are rounded to 8 bits for "
        "compressed weights; 0: not rounded",
    },
}
PASSIVE = ("Input", "Output", "Parameter", "Result", "Const", "Constant")


class OpenVinoSession:
    """An IR compiled for the CPU, with fp32 inference whatever the weights are stored in, unless
    ``options`` say otherwise.

    On CPUs with bf16 OpenVINO would otherwise infer in bf16 unasked, and the artifact would be
    judged by that."""

    def __init__(self, path: Path, threads: int, options: Mapping[str, Any] | None = None) -> None:
        import openvino

        core = openvino.Core()
        said: dict[str, Any] = {
            name: schema.get("default") for name, schema in OPTIONS.items()
        } | dict(options or {})
        config = {
            "INFERENCE_PRECISION_HINT": said["inference_precision"],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": str(said["hint"]).upper(),
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": said["dynamic_quantization"],
        }
        try:
            network = core.read_model(str(path))
            self.compiled = core.compile_model(network, DEVICE, config)
        except Exception as problem:  # OpenVINO raises plain RuntimeError
            raise UnsupportedError(
                f"OpenVINO cannot load the artifact: {' '.join(str(problem).split())[:800]}"
            ) from problem
        self.request = self.compiled.create_infer_request()
        self.inputs: tuple[TensorSpec, ...] = tuple(
            map(_spec, self.compiled.inputs, network.inputs)
        )
        self.outputs: tuple[TensorSpec, ...] = tuple(
            map(_spec, self.compiled.outputs, network.outputs)
        )
        self.version = openvino.__version__
        self.ran = False

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs copied out of the request's memory, which the next call overwrites. Raises
        StepError for a feed that does not fit, or where OpenVINO fails."""
        import numpy as np

        check_feed(self.inputs, feed)
        try:
            self.request.infer(dict(feed), share_inputs=False)
        except Exception as problem:  # OpenVINO raises plain RuntimeError
            raise StepError(f"OpenVINO failed: {' '.join(str(problem).split())[:800]}") from problem
        self.ran = True
        return {
            spec.name: np.array(self.request.get_output_tensor(i).data)
            for i, spec in enumerate(self.outputs)
        }

    def placement(self) -> Placement:
        """The compiled model's own execution devices and its runtime graph, the layers as they were
        executed."""
        if not self.ran:
            raise StepError("placement asked for before a run")
        devices = [str(d) for d in self.compiled.get_property("EXECUTION_DEVICES")]
        kinds = [_layer_type(op) for op in self.compiled.get_runtime_model().get_ordered_ops()]
        layers = [kind for kind in kinds if kind not in PASSIVE]
        return Placement(
            provider=DEVICE,
            device=DEVICE.lower(),
            nodes=len(layers) if devices == [DEVICE] else 0,
            elsewhere={device: len(layers) for device in devices if device != DEVICE},
            witnesses=("EXECUTION_DEVICES", "runtime model"),
        )

    def details(self) -> dict[str, Any]:
        """``inference_precision``: what the arithmetic ran in, as the compiled model reports it."""
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
        self.request = None
        self.compiled = None


def _layer_type(op: Any) -> str:
    info = op.get_rt_info()
    return str(info["layerType"].value if "layerType" in info else op.get_type_name())


def _spec(port: Any, written: Any) -> TensorSpec:
    """A compiled port under the name that was written, of which the target writes one a port: where
    compilation drops a Convert before an output, it adds the name of the tensor that came in."""
    name = min(written.get_names()) if written.get_names() else port.get_node().get_friendly_name()
    shape = tuple(
        d.get_length() if d.is_static else f"{name}_{i}"
        for i, d in enumerate(port.get_partial_shape())
    )
    element = port.get_element_type()
    dtype = {"boolean": "bool"}.get(element.get_type_name()) or str(element.to_dtype())
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def threads(options: Mapping[str, Any]) -> int | None:
    """How many threads the options ask for; None leaves it to the machine."""
    return options.get("threads")


def load(
    directory: Path, *, options: dict[str, Any], threads: int, precision: str
) -> OpenVinoSession:
    """Load an artifact's folder. Raises UnsupportedError where OpenVINO refuses it."""
    return OpenVinoSession(
        directory / FILE, threads, {k: v for k, v in options.items() if k in OPTIONS}
    )


def devices() -> list[Device]:
    """CPU, GPU and NPU: those that OpenVINO finds and runs a small graph on, by their full names
    and what they compute in."""
    import openvino

    core = openvino.Core()
    found = []
    for name in core.available_devices:
        about = {
            key: str(core.get_property(name, key))
            for key in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
        }
        reason = _why_not(core, name)
        said = about["FULL_DEVICE_NAME"]
        found.append(
            Device(
                engine="openvino",
                name=name,
                available=reason is None,
                description=said,
                reason=reason,
                details=about,
            )
        )
    absent = [
        kind for kind in ("CPU", "GPU", "NPU") if not any(d.name.startswith(kind) for d in found)
    ]
    return found + [
        Device(
            engine="openvino",
            name=kind,
            available=False,
            reason="OpenVINO finds no such device or driver",
        )
        for kind in absent
    ]


def _why_not(core: Any, device: str) -> str | None:
    """None where a small graph runs on ``device`` and is right, else the reason."""
    import numpy as np
    import openvino

    try:
        port = openvino.opset13.parameter([2, 8], np.float32)
        graph = openvino.Model([openvino.opset13.relu(port)], [port], "probe")
        feed = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)
        answer = core.compile_model(graph, device)([feed])[0]
    except Exception as problem:  # OpenVINO raises plain RuntimeError
        return f"it runs nothing here: {' '.join(str(problem).split())[:300]}"
    return (
        None
        if np.allclose(answer, feed.clip(0), atol=1e-2)
        else "a small graph came out wrong on it"
    )

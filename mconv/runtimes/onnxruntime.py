"""ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv import graph
from mconv.errors import StepError, UnsupportedError
from mconv.runtimes._feed import check_feed
from mconv.values import Device, ModelInfo, Placement, TensorSpec

if TYPE_CHECKING:
    import numpy as np

TOOLS = ("onnxruntime",)
PROVIDER = "CPUExecutionProvider"
# bytes of the files of a model that is not in memory twice; what an engine makes of them may be
# larger
LARGE = 1 << 28
LEVELS = {"all": "ALL", "extended": "EXTENDED", "basic": "BASIC", "none": "DISABLE_ALL"}
OPTIONS: dict[str, dict[str, Any]] = {
    "threads": {
        "type": "integer",
        "minimum": 1,
        "description": "threads of one inference, and of the source framework it is measured "
        "against (default: all cores)",
    },
    "graph_optimization": {
        "enum": list(LEVELS),
        "default": "all",
        "description": "what onnxruntime does to the graph when it is loaded",
    },
    "arena": {
        "type": "boolean",
        "default": True,
        "description": "keep memory between inferences; off takes less of it, and longer",
    },
    "spinning": {
        "type": "boolean",
        "default": True,
        "description": "threads that wait keep the processor; off leaves it to others",
    },
    "flush_denormals": {
        "type": "boolean",
        "default": False,
        "description": "numbers below 1.2e-38 count as zero",
    },
    "qdq_matmul_accuracy": {
        "enum": ["float", "int8"],
        "default": "float",
        "description": "products with block-wise weights: as written, or quicker with activations "
        "rounded to 8 bits",
    },
}
PROVIDERS = {  # what people call them, and the package that has them
    "CPUExecutionProvider": ("CPU", "every build"),
    "CUDAExecutionProvider": ("NVIDIA CUDA", "onnxruntime-gpu"),
    "TensorrtExecutionProvider": ("NVIDIA TensorRT", "onnxruntime-gpu"),
    "NvTensorRTRTXExecutionProvider": ("NVIDIA TensorRT RTX", "a build for it"),
    "ROCMExecutionProvider": ("AMD ROCm", "onnxruntime-rocm"),
    "MIGraphXExecutionProvider": ("AMD MIGraphX", "onnxruntime-rocm"),
    "DmlExecutionProvider": ("DirectML", "onnxruntime-directml, on Windows,"),
    "OpenVINOExecutionProvider": ("OpenVINO", "onnxruntime-openvino"),
    "QNNExecutionProvider": ("Qualcomm QNN", "onnxruntime-qnn"),
    "CoreMLExecutionProvider": ("Apple CoreML", "the build for macOS"),
    "WebGpuExecutionProvider": ("WebGPU (Dawn)", "a build for it"),
    "XnnpackExecutionProvider": ("XNNPACK", "a build for it"),
    "VitisAIExecutionProvider": ("AMD Vitis AI", "a build for it"),
}


class OnnxRuntimeSession:
    """``model.onnx`` of a folder. Profiling of a second session on the first feed shows where the
    nodes ran."""

    def __init__(self, path: Path, threads: int, options: Mapping[str, Any] | None = None) -> None:
        import onnxruntime

        self.path = path
        self.threads = threads
        self.options: dict[str, Any] = {
            name: schema.get("default") for name, schema in OPTIONS.items()
        } | dict(options or {})
        self.first: dict[str, np.ndarray] | None = None
        info: ModelInfo = graph.describe(path)
        self.inputs: tuple[TensorSpec, ...] = info.inputs
        self.outputs: tuple[TensorSpec, ...] = info.outputs
        self.version = onnxruntime.__version__
        self.session: Any = self._open(None)
        self.providers: list[str] = self.session.get_providers()

    def _open(self, profile: str | None) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        level = LEVELS[self.options["graph_optimization"]]
        options.graph_optimization_level = getattr(
            onnxruntime.GraphOptimizationLevel,
            f"ORT_{level if level[0] == 'D' else f'ENABLE_{level}'}",
        )
        options.enable_cpu_mem_arena = bool(self.options["arena"])
        # Unless told not to, DequantizeLinear + MatMul is fused at accuracy level 4, which
        # quantizes the activations too.
        accuracy = "0" if self.options["qdq_matmul_accuracy"] == "float" else "4"
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", accuracy)
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", str(int(self.options["spinning"]))
        )
        options.add_session_config_entry(
            "session.set_denormal_as_zero", str(int(self.options["flush_denormals"]))
        )
        if profile:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        try:
            return onnxruntime.InferenceSession(str(self.path), options, providers=[PROVIDER])
        except Exception as problem:  # onnxruntime's exceptions share no public base class
            said = " ".join(str(problem).split())[:800]
            raise UnsupportedError(f"onnxruntime cannot load the artifact: {said}") from problem

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs as copies. Raises StepError for a feed that does not fit, or where onnxruntime
        fails."""
        import numpy as np

        check_feed(self.inputs, feed)
        if self.session is None:
            self.session = self._open(None)
        names = [o.name for o in self.outputs]
        try:
            answers = self.session.run(names, dict(feed))
        except Exception as problem:  # onnxruntime's exceptions share no public base class
            raise StepError(
                f"onnxruntime failed: {' '.join(str(problem).split())[:800]}"
            ) from problem
        if self.first is None:
            self.first = {name: np.array(array) for name, array in feed.items()}
        return {name: np.array(answer) for name, answer in zip(names, answers, strict=True)}

    def placement(self) -> Placement:
        """Nodes by provider, from onnxruntime's own profile of one run in a second session; the
        first stays unprofiled.

        Of a large model there is only one session at a time.
        """
        if self.first is None:
            raise StepError("placement asked for before a run")
        if sum(file.stat().st_size for file in self.path.parent.iterdir()) > LARGE:
            self.session = None
        with tempfile.TemporaryDirectory() as folder:
            session = self._open(str(Path(folder) / "profile"))
            session.run([o.name for o in self.outputs], self.first)
            events = json.loads(Path(session.end_profiling()).read_text())
        ran: Counter[str] = Counter()
        strays: Counter[str] = Counter()
        for event in events:
            args = event.get("args") or {}
            if (
                event.get("cat") == "Node"
                and event.get("name", "").endswith("_kernel_time")
                and "provider" in args
            ):
                (ran if args["provider"] == PROVIDER else strays)[args.get("op_name", "?")] += 1
        return Placement(
            provider=PROVIDER,
            device="cpu",
            nodes=sum(ran.values()),
            elsewhere=dict(sorted(strays.items())),
            witnesses=("profile",) if ran or strays else (),
        )

    def details(self) -> dict[str, Any]:
        """The options as they were in force; ``qdq_matmul_accuracy``: ``float`` as written,
        ``int8`` with rounded activations."""
        return {
            "onnxruntime": self.version,
            "providers": self.providers,
            "threads": self.threads,
            **{name: self.options[name] for name in OPTIONS if name != "threads"},
        }

    def close(self) -> None:
        self.session = None


def threads(options: Mapping[str, Any]) -> int | None:
    """How many threads the options ask for; None leaves it to the machine."""
    return options.get("threads")


def load(
    directory: Path, *, options: dict[str, Any], threads: int, precision: str
) -> OnnxRuntimeSession:
    """Load ``model.onnx`` of an artifact's folder. Raises UnsupportedError where onnxruntime
    refuses it."""
    return OnnxRuntimeSession(
        directory / graph.MODEL_FILE, threads, {k: v for k, v in options.items() if k in OPTIONS}
    )


def devices() -> list[Device]:
    """Every execution provider that onnxruntime knows. One that this build has counts as available
    where a product ran on it."""
    import onnxruntime

    here = onnxruntime.get_available_providers()
    build = f"onnxruntime {onnxruntime.__version__}"
    found = []
    for name in onnxruntime.get_all_providers():
        what, package = PROVIDERS.get(name, ("", "another build"))
        reason = (
            _why_not(name)
            if name in here
            else f"not in the onnxruntime that is installed; {package} has it"
        )
        said = f"{build}, {what}" if what else build
        found.append(
            Device(
                engine="onnxruntime",
                name=name,
                available=reason is None,
                description=said,
                reason=reason,
            )
        )
    return found


def _why_not(provider: str) -> str | None:
    """None where a matrix product runs on ``provider`` by onnxruntime's own profile and is right,
    else the reason."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    weight = np.arange(64, dtype=np.float32).reshape(8, 8) / 64
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 8]) for n in ("x", "y")]
    proto = helper.make_graph(
        [node], "probe", value[:1], value[1:], [numpy_helper.from_array(weight, "w")]
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = True
    feed: Any = np.ones((2, 8), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=[provider]
            )
            answer = session.run(None, {"x": feed})[0]
            events = json.loads(Path(session.end_profiling()).read_text())
        except Exception as problem:  # onnxruntime's exceptions share no public base class
            return f"it runs nothing here: {' '.join(str(problem).split())[:300]}"
    ran = {
        (e.get("args") or {}).get("provider")
        for e in events
        if e.get("name", "").endswith("_kernel_time")
    }
    if provider not in ran:
        return (
            "onnxruntime gave a matrix product to "
            f"{', '.join(sorted(filter(None, ran))) or 'no provider'} instead"
        )
    return (
        None
        if np.allclose(answer, feed @ weight, rtol=1e-2)
        else "a matrix product came out wrong on it"
    )

"""ONNX Runtime, on the processor or on a GPU."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from mconv.errors import StepError, UnsupportedError, one_line
from mconv.onnx_graph import model_files, surgery
from mconv.onnx_graph.serialization import serialize
from mconv.runtimes import _providers
from mconv.runtimes._profiles import Kernel, place_kernels, read_kernels
from mconv.runtimes._providers import CHOICES
from mconv.samples import check_feed
from mconv.values import Device, Placement, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    import onnxruntime

    from mconv.contracts import Feed, Options

TOOLS = ("onnxruntime",)
# bytes of the files of a model that is not in memory twice; what an engine makes of them may be
# larger
LARGE = 1 << 28
# names of element types that are others than NumPy's
ELEMENTS = {"float": "float32", "double": "float64", "string": "object"}
LEVELS = {  # the option graph_optimization → a member of onnxruntime.GraphOptimizationLevel
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "none": "ORT_DISABLE_ALL",
}


class RunOptions(TypedDict, total=False):
    """The options of a run; ``OPTIONS`` says what each does."""

    threads: int
    graph_optimization: str
    arena: bool
    spinning: bool
    flush_denormals: bool
    qdq_matmul_accuracy: str
    provider: str
    tf32: bool


DEFAULTS: RunOptions = {
    "graph_optimization": "all",
    "arena": True,
    "spinning": True,
    "flush_denormals": False,
    "qdq_matmul_accuracy": "float",
    "provider": "cpu",
    "tf32": False,
}
OPTIONS: dict[str, dict[str, object]] = {
    "threads": {
        "type": "integer",
        "minimum": 1,
        "description": "threads of one inference, and of the source framework it is measured "
        "against (default: all cores)",
    },
    "graph_optimization": {
        "enum": list(LEVELS),
        "default": DEFAULTS["graph_optimization"],
        "description": "what onnxruntime does to the graph when it is loaded",
    },
    "arena": {
        "type": "boolean",
        "default": DEFAULTS["arena"],
        "description": "keep memory between inferences; off takes less of it, and longer",
    },
    "spinning": {
        "type": "boolean",
        "default": DEFAULTS["spinning"],
        "description": "threads that wait keep the processor; off leaves it to others",
    },
    "flush_denormals": {
        "type": "boolean",
        "default": DEFAULTS["flush_denormals"],
        "description": "numbers below 1.2e-38 count as zero",
    },
    "qdq_matmul_accuracy": {
        "enum": ["float", "int8"],
        "default": DEFAULTS["qdq_matmul_accuracy"],
        "description": "products with block-wise weights: as written, or quicker with activations "
        "rounded to 8 bits",
    },
    "provider": {
        "enum": list(CHOICES),
        "default": DEFAULTS["provider"],
        "description": "what runs it: the processor, or one of NVIDIA's GPUs (cuda), which this "
        "machine must have",
    },
    "tf32": {
        "type": "boolean",
        "default": DEFAULTS["tf32"],
        "description": "products of fp32 on a GPU have factors of 10 bits behind the point; off "
        "keeps all 23",
    },
}
# execution provider → what people call it, and the package that has it
PROVIDERS = {
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
    """Runs the ``model.onnx`` of a folder in onnxruntime.

    A second session, profiled on the first feed, shows where the nodes ran.

    Attributes:
        provider: What is claimed to run it.
        adapter: The name of the GPU.
        inputs: The graph's inputs as the file has them.
        outputs: The graph's outputs as the file has them.
        version: onnxruntime's.
        providers: The execution providers that the session was given.
    """

    def __init__(self, path: Path, threads: int, options: RunOptions | None = None) -> None:
        import onnxruntime

        self.path = path
        self.threads = threads
        self.options: RunOptions = DEFAULTS | (options or {})
        self.first_feed: dict[str, np.ndarray] | None = None
        self.version: str = onnxruntime.__version__
        self.provider = CHOICES[self.options["provider"]]
        self.adapter = self.provider.prepare()
        session = self._open_session()
        self.inputs: tuple[TensorSpec, ...] = tuple(map(_make_spec, session.get_inputs()))
        self.outputs: tuple[TensorSpec, ...] = tuple(map(_make_spec, session.get_outputs()))
        self.session: onnxruntime.InferenceSession | None = session
        self.providers: list[str] = session.get_providers()
        self.in_force: dict[str, str] = session.get_provider_options()[self.provider.engine]

    def _open_session(self, profile: Path | None = None) -> onnxruntime.InferenceSession:
        """Load the file; ``profile`` is the beginning of the name of a file to profile into.

        Raises UnsupportedError where onnxruntime refuses the file.
        """
        import onnxruntime

        options = self._make_session_options()
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
            if self.provider.is_accelerator:
                options.add_session_config_entry(_providers.RECORD_ASSIGNMENT, "1")
        settings = self.provider.make_settings(tf32=self.options["tf32"])
        try:
            session = onnxruntime.InferenceSession(
                str(self.path),
                options,
                providers=[(self.provider.engine, settings)],
                enable_fallback=0,  # a provider that fails is an error
            )
        except Exception as problem:  # onnxruntime's exceptions share no public base class
            raise UnsupportedError(
                f"onnxruntime cannot load the artifact: {one_line(problem, 800)}"
            ) from problem
        if self.provider.engine not in session.get_providers():
            raise StepError(self.provider.explain_absence())
        return session

    def _make_session_options(self) -> onnxruntime.SessionOptions:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.graph_optimization_level = getattr(
            onnxruntime.GraphOptimizationLevel, LEVELS[self.options["graph_optimization"]]
        )
        options.enable_cpu_mem_arena = self.options["arena"]
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
        options.use_deterministic_compute = self.provider.is_accelerator
        return options

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Return every output by name, as copies.

        Raises StepError for a feed that does not fit, or where onnxruntime fails.
        """
        import numpy as np

        check_feed(self.inputs, feed)
        if self.session is None:
            self.session = self._open_session()
        names = [spec.name for spec in self.outputs]
        try:
            arrays = self.session.run(names, dict(feed))
        except Exception as problem:  # onnxruntime's exceptions share no public base class
            raise StepError(f"onnxruntime failed: {one_line(problem, 800)}") from problem
        if self.first_feed is None:
            self.first_feed = {name: np.array(array) for name, array in feed.items()}
        return {name: np.array(array) for name, array in zip(names, arrays, strict=True)}

    def placement(self) -> Placement:
        """Count nodes by provider in onnxruntime's own profile of one run in a second session; the
        first stays unprofiled. Where it shares a graph between a GPU and the processor, what it
        assigned to each counts as well, so that a branch that was not taken is seen.

        Of a large model there is only one session at a time. Raises StepError before a run.
        """
        if self.first_feed is None:
            raise StepError("placement asked for before a run")
        if sum(file.stat().st_size for file in self.path.parent.iterdir()) > LARGE:
            self.session = None
        with tempfile.TemporaryDirectory() as folder:
            session = self._open_session(Path(folder) / "profile")
            session.run([spec.name for spec in self.outputs], self.first_feed)
            kernels = read_kernels(Path(session.end_profiling()))
            assigned = _read_assignment(session) if self.provider.is_accelerator else None
        return place_kernels(
            self.provider.engine,
            kernels,
            assigned,
            device=self.provider.device,
            adapter=self.adapter,
        )

    def details(self) -> dict[str, object]:
        """Return the options as they were in force; ``qdq_matmul_accuracy`` is ``float`` where
        products run as written, ``int8`` where activations are rounded."""
        return {
            "onnxruntime": self.version,
            "providers": self.providers,
            **self._describe_provider(),
            "threads": self.threads,
            "graph_optimization": self.options["graph_optimization"],
            "arena": self.options["arena"],
            "spinning": self.options["spinning"],
            "flush_denormals": self.options["flush_denormals"],
            "qdq_matmul_accuracy": self.options["qdq_matmul_accuracy"],
        }

    def _describe_provider(self) -> dict[str, object]:
        """Return the settings of a GPU's provider as the session reports them."""
        if not self.provider.is_accelerator:
            return {}
        return {
            "adapter": self.adapter,
            **{name: self.in_force.get(name) for name in self.provider.make_settings(tf32=False)},
        }

    def close(self) -> None:
        """Release the engine."""
        self.session = None


def _make_spec(argument: onnxruntime.NodeArg) -> TensorSpec:
    """Return the type and shape of an input or output as onnxruntime tells them; an axis without a
    name or a size is called ``<tensor>_<axis>``. Raises UnsupportedError for what is no tensor."""
    element = argument.type.removeprefix("tensor(").removesuffix(")")
    if not argument.type.startswith("tensor("):
        raise UnsupportedError(
            f"{argument.name!r} is no tensor: its type is {argument.type}",
            hint="export the model with tensors as inputs and outputs",
        )
    shape = []
    for axis, size in enumerate(argument.shape):
        fixed = isinstance(size, int) and size >= 0
        shape.append(size if fixed or isinstance(size, str) else f"{argument.name}_{axis}")
    dtype = ELEMENTS.get(element, element)
    return TensorSpec(name=argument.name, dtype=dtype, shape=tuple(shape))


def _read_assignment(session: onnxruntime.InferenceSession) -> list[Kernel]:
    """Return all nodes as onnxruntime shared them between providers, in the bodies of control flow
    too."""
    return [
        Kernel(name=node.name, operator=node.op_type, provider=group.ep_name)
        for group in session.get_provider_graph_assignment_info()
        for node in group.get_nodes()
    ]


def threads(options: RunOptions) -> int | None:
    """Return how many threads the options ask for; None leaves it to the machine."""
    return options.get("threads")


def tool(options: Options) -> str:
    """Return the tool that the provider's build of onnxruntime comes with; mconv's own is for the
    processor."""
    return _find_provider(options).tool


def accelerator(options: Options) -> str | None:
    """Return the name of the GPU that the provider needs; raises UnsupportedError without one."""
    return _find_provider(options).find_adapter()


def _find_provider(options: Options) -> _providers.Provider:
    """Return the provider that the options name."""
    return CHOICES[str(options.get("provider", DEFAULTS["provider"]))]


def load(
    directory: Path, *, options: RunOptions, threads: int, precision: str
) -> OnnxRuntimeSession:
    """Load ``model.onnx`` of an artifact's folder.

    Raises UnsupportedError where onnxruntime refuses it.
    """
    return OnnxRuntimeSession(directory / model_files.MODEL_FILE, threads, options)


def devices() -> list[Device]:
    """List every execution provider that onnxruntime knows.

    One that this build has counts as available where a matrix product ran on it.
    """
    import onnxruntime

    included = onnxruntime.get_available_providers()
    build = f"onnxruntime {onnxruntime.__version__}"
    providers = []
    for name in onnxruntime.get_all_providers():
        common_name, package = PROVIDERS.get(name, ("", "another build"))
        if name in included:
            reason = _probe_provider(name)
        else:
            reason = f"not in the onnxruntime that is installed; {package} has it"
        providers.append(
            Device(
                engine="onnxruntime",
                name=name,
                available=reason is None,
                description=f"{build}, {common_name}" if common_name else build,
                reason=reason,
            )
        )
    return providers


def _probe_provider(provider: str) -> str | None:
    """Run a matrix product on ``provider``. Return None where it ran there, by onnxruntime's own
    profile, and is right, else the reason."""
    import numpy as np
    import onnxruntime

    weight: np.ndarray = np.arange(64, dtype=np.float32).reshape(8, 8) / 64
    x: np.ndarray = np.ones((2, 8), np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        try:
            session = onnxruntime.InferenceSession(
                serialize(_make_product(weight)), options, providers=[provider]
            )
            product = session.run(None, {"x": x})[0]
            kernels = read_kernels(Path(session.end_profiling()))
        except Exception as problem:  # onnxruntime's exceptions share no public base class
            return f"it runs nothing here: {one_line(problem)}"
    ran = {kernel.provider for kernel in kernels}
    if provider not in ran:
        others = ", ".join(sorted(ran)) or "no provider"
        return f"onnxruntime gave a matrix product to {others} instead"
    if not np.allclose(product, x @ weight, rtol=1e-2):
        return "a matrix product came out wrong on it"
    return None


def _make_product(weight: np.ndarray) -> ir.Model:
    """Return the model ``y = x @ weight`` for ``x`` of two rows."""
    import onnx_ir as ir

    rows, columns = weight.shape
    kind = ir.TensorType(ir.DataType.FLOAT)
    x = ir.Value(name="x", type=kind, shape=ir.Shape([2, rows]))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 17}, name="probe")
    w = surgery.add_initializer(graph, "w", weight)
    product = surgery.make_node("MatMul", [x, w], ["y"], name="product")
    graph.append(product)
    y = product.outputs[0]
    y.type, y.shape = kind, ir.Shape([2, columns])
    graph.outputs.append(y)
    return ir.Model(graph, ir_version=8)

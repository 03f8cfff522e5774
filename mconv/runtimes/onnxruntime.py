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
LARGE = 1 << 30  # bytes of a model's files


class OnnxRuntimeSession:
    """``model.onnx`` of a folder. Profiling of a second session on the first feed shows where the nodes ran."""

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        self.path = path
        self.threads = threads
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
        # Without this, DequantizeLinear + MatMul is fused at accuracy level 4, which quantizes the activations too.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
        if profile:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        try:
            return onnxruntime.InferenceSession(str(self.path), options, providers=[PROVIDER])
        except Exception as problem:  # onnxruntime's exceptions share no public base class
            said = " ".join(str(problem).split())[:800]
            raise UnsupportedError(f"onnxruntime cannot load the artifact: {said}") from problem

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs as copies. Raises StepError for a feed that does not fit, or where onnxruntime fails."""
        import numpy as np

        check_feed(self.inputs, feed)
        if self.session is None:
            self.session = self._open(None)
        names = [o.name for o in self.outputs]
        try:
            answers = self.session.run(names, dict(feed))
        except Exception as problem:  # onnxruntime's exceptions share no public base class
            raise StepError(f"onnxruntime failed: {' '.join(str(problem).split())[:800]}") from problem
        if self.first is None:
            self.first = {name: np.array(array) for name, array in feed.items()}
        return {name: np.array(answer) for name, answer in zip(names, answers, strict=True)}

    def placement(self) -> Placement:
        """Nodes by provider, from onnxruntime's own profile of one run in a second session; the first stays unprofiled.

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
            if event.get("cat") == "Node" and event.get("name", "").endswith("_kernel_time") and "provider" in args:
                (ran if args["provider"] == PROVIDER else strays)[args.get("op_name", "?")] += 1
        return Placement(
            provider=PROVIDER,
            device="cpu",
            nodes=sum(ran.values()),
            elsewhere=dict(sorted(strays.items())),
            witnesses=("profile",) if ran or strays else (),
        )

    def details(self) -> dict[str, Any]:
        """``qdq_matmul_accuracy``: how block-wise weights are multiplied, ``float`` as written, not with int8 activations."""
        return {
            "onnxruntime": self.version,
            "providers": self.providers,
            "threads": self.threads,
            "qdq_matmul_accuracy": "float",
        }

    def close(self) -> None:
        self.session = None


def load(directory: Path, *, options: dict[str, Any], threads: int, precision: str) -> OnnxRuntimeSession:
    """Load ``model.onnx`` of an artifact's folder. Raises UnsupportedError where onnxruntime refuses it."""
    return OnnxRuntimeSession(directory / graph.MODEL_FILE, threads)


def devices() -> list[Device]:
    """Every execution provider that onnxruntime knows, and whether this build has it."""
    import onnxruntime

    here = set(onnxruntime.get_available_providers())
    build = f"onnxruntime {onnxruntime.__version__}"
    return [
        Device(
            engine="onnxruntime",
            name=name,
            available=name in here,
            description=build,
            reason=None if name in here else "not in the onnxruntime that is installed",
        )
        for name in onnxruntime.get_all_providers()
    ]

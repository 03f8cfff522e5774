"""What onnxruntime can run an artifact on, by the names that models.yml has for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from mconv.errors import StepError, UnsupportedError, one_line
from mconv.runtimes import _nvidia

RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"
CUDA_MAJOR = 13  # of the build of onnxruntime that is locked


class Provider(NamedTuple):
    """An execution provider of onnxruntime.

    Attributes:
        engine: Its name there.
        device: The kind of device.
        tool: The tool that its build of onnxruntime comes with; empty is mconv's own.
        library: The file of its build, which needs libraries of the device's maker.
        settings: What it is given, so that its answers are those of the artifact.
        tf32: The setting for products with rounded factors, where it has one.
        find: Returns the name of the device, and raises UnsupportedError where there is none.
        load: Loads the libraries that it needs.
    """

    engine: str
    device: str
    tool: str = ""
    library: str = ""
    settings: Mapping[str, str] = {}
    tf32: str = ""
    find: Callable[[], str] | None = None
    load: Callable[[], None] | None = None

    @property
    def is_accelerator(self) -> bool:
        """Whether it is something else than the processor, with which it shares graphs then."""
        return self.find is not None

    def find_adapter(self) -> str | None:
        """Return the name of the device; None is the processor."""
        return self.find() if self.find is not None else None

    def make_settings(self, *, tf32: bool) -> dict[str, str]:
        """Return the settings of a session."""
        chosen = {self.tf32: str(int(tf32))} if self.tf32 else {}
        return {**self.settings, **chosen}

    def prepare(self) -> str | None:
        """Load what the provider needs and return the name of the device; None is the processor.

        Raises UnsupportedError without a device, and StepError where onnxruntime is another build
        or a library is missing.
        """
        import onnxruntime

        adapter = self.find_adapter()
        if self.engine not in onnxruntime.get_available_providers():
            raise StepError(
                f"the onnxruntime that is installed ({onnxruntime.__version__}) has no "
                f"{self.engine}",
                hint=f"uninstall `onnxruntime` where its other build is installed beside it, since "
                f"the two are one folder; or leave it to mconv, `mconv setup --tool {self.tool}`",
            )
        if self.load is not None:
            try:
                self.load()
            except OSError as problem:
                raise StepError(
                    f"a library that {self.engine} needs cannot be loaded: {one_line(problem)}"
                ) from problem
        return adapter

    def explain_absence(self) -> str:
        """Return why a session came without it, which onnxruntime says in its log alone."""
        import ctypes

        import onnxruntime

        words = "onnxruntime gives no reason"
        try:
            ctypes.CDLL(str(Path(onnxruntime.__file__).with_name("capi") / self.library))
        except OSError as problem:
            words = one_line(problem)
        return f"onnxruntime did not start {self.engine}, and would have run on the CPU: {words}"


def _find_cuda() -> str:
    """Return the name of the GPU. Raises UnsupportedError where there is none, or where its driver
    is too old."""
    gpu = _nvidia.find_gpu()
    if gpu.cuda < (CUDA_MAJOR, 0):
        raise UnsupportedError(
            f"the driver of {gpu.name} takes CUDA {gpu.cuda[0]}.{gpu.cuda[1]} at most, and "
            f"onnxruntime is built for CUDA {CUDA_MAJOR}",
            hint="install a newer driver",
        )
    return gpu.name


def _load_cuda() -> None:
    """Load CUDA's libraries."""
    _nvidia.load_libraries(CUDA_MAJOR)


# name in models.yml → the provider. A further one (tensorrt, rocm, directml …) is a line here, and
# a tool for its build in mconv/environments/tools.py.
CHOICES: dict[str, Provider] = {
    "cpu": Provider(engine="CPUExecutionProvider", device="cpu"),
    "cuda": Provider(
        engine="CUDAExecutionProvider",
        device="gpu",
        tool="cuda",
        library="libonnxruntime_providers_cuda.so",
        # kernels for convolutions are chosen by rule: a choice by the clock changes with each run
        settings={"device_id": "0", "cudnn_conv_algo_search": "HEURISTIC"},
        tf32="use_tf32",
        find=_find_cuda,
        load=_load_cuda,
    ),
}

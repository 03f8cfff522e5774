"""NVIDIA's GPUs, as the driver's own library tells of them. No engine is loaded."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

from mconv.errors import UnsupportedError

DRIVER = "libcuda.so.1"
CHOICE = "CUDA_VISIBLE_DEVICES"
LONGEST_NAME = 256
HINT = (
    "run it on a machine with one of NVIDIA's GPUs (in a container with the GPU handed in, as by "
    "`docker run --gpus all`), or leave `provider` out"
)
# Libraries of CUDA in the order in which they need each other, as NVIDIA's wheels have them.
LIBRARIES = (
    "libcudart.so.*",
    "libnvJitLink.so.*",
    "libcublasLt.so.*",
    "libcublas.so.*",
    "libnvrtc.so.*",
    "libcurand.so.*",
    "libcufft.so.*",
    "libcudnn.so.*",
)


class Gpu(NamedTuple):
    """A GPU.

    Attributes:
        name: Its name.
        cuda: The version of CUDA that its driver takes at most.
    """

    name: str
    cuda: tuple[int, int]


@cache
def find_gpu() -> Gpu:
    """Return the first GPU that this process may use.

    Raises UnsupportedError, with the driver's own words, where there is none.
    """
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError as problem:
        raise UnsupportedError(
            f"there is no driver for NVIDIA's GPUs here ({DRIVER} cannot be loaded)", hint=HINT
        ) from problem
    _check(driver, driver.cuInit(0))
    version, count, device = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _check(driver, driver.cuDriverGetVersion(ctypes.byref(version)))
    _check(driver, driver.cuDeviceGetCount(ctypes.byref(count)))
    if not count.value:
        raise UnsupportedError(f"NVIDIA's driver finds no GPU here{_name_choice()}", hint=HINT)
    name = ctypes.create_string_buffer(LONGEST_NAME)
    _check(driver, driver.cuDeviceGet(ctypes.byref(device), 0))
    _check(driver, driver.cuDeviceGetName(name, LONGEST_NAME, device))
    major, minor = version.value // 1000, version.value % 1000 // 10
    return Gpu(name=name.value.decode("utf-8", "replace"), cuda=(major, minor))


def _check(driver: ctypes.CDLL, code: int) -> None:
    """Raise UnsupportedError, with the driver's words, for a code that is not that of success."""
    if not code:
        return
    words = ctypes.c_char_p()
    driver.cuGetErrorString(code, ctypes.byref(words))
    said = (words.value or b"unknown error").decode("utf-8", "replace")
    raise UnsupportedError(
        f"NVIDIA's driver finds no GPU here: {said} (error {code}){_name_choice()}", hint=HINT
    )


def _name_choice() -> str:
    """Return in words which GPUs the environment leaves to this process, where it says so."""
    chosen = os.environ.get(CHOICE)
    return f"; {CHOICE} is {chosen!r}" if chosen is not None else ""


def load_libraries(major: int) -> None:
    """Load the libraries of a version of CUDA that lie in folders of packages, each once.

    The loader would not look for them there. Two layers of packages may each hold some. Raises
    OSError.
    """
    for pattern in LIBRARIES:
        for entry in sys.path:
            top = Path(entry, "nvidia")
            paths = [*top.glob(f"cu{major}/lib/{pattern}"), *top.glob(f"cudnn/lib/{pattern}")]
            if paths:
                ctypes.CDLL(str(min(paths)), mode=ctypes.RTLD_GLOBAL)
                break

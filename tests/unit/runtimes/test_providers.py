"""onnxruntime on a GPU, as far as a machine without one shows it: which device there is, what it
takes, and where nodes count as run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mconv.contracts import check_plugin
from mconv.environments.tools import TOOLS
from mconv.errors import StepError, UnsupportedError
from mconv.registry import runtimes
from mconv.runtimes import _nvidia, _profiles, _providers
from mconv.runtimes import onnxruntime as ort
from mconv.runtimes._profiles import Kernel, place_kernels
from tests.models import linear

pytestmark = pytest.mark.filterwarnings("ignore")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
WORDS = b"no CUDA-capable device is detected"


class Driver:
    """libcuda of a machine with these GPUs."""

    def __init__(self, names: list[str], version: int = 13000, init: int = 0) -> None:
        self.names, self.version, self.init = names, version, init

    def cuInit(self, flags: int) -> int:
        return self.init

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self.names)
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = 7 + index
        return 0

    def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:
        name.value = self.names[device.value - 7].encode()
        return 0

    def cuGetErrorString(self, code: int, words: Any) -> int:
        words._obj.value = WORDS
        return 0


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    _nvidia.find_gpu.cache_clear()
    yield
    _nvidia.find_gpu.cache_clear()


def give(monkeypatch: pytest.MonkeyPatch, driver: Driver | None) -> None:
    """The machine has this driver."""

    def load(name: str, mode: int = 0) -> Any:
        if driver is None or name != "libcuda.so.1":
            raise OSError(f"{name}: cannot open shared object file")
        return driver

    monkeypatch.setattr(_nvidia.ctypes, "CDLL", load)


def test_the_first_gpu_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, Driver(["NVIDIA H200", "NVIDIA L4"], version=13010))
    assert _nvidia.find_gpu() == ("NVIDIA H200", (13, 1))
    assert ort.accelerator({"provider": "cuda"}) == "NVIDIA H200"
    assert ort.accelerator({"provider": "cpu"}) is None
    assert ort.accelerator({}) is None


@pytest.mark.parametrize(
    ("driver", "words"),
    [
        (None, r"no driver for NVIDIA's GPUs here \(libcuda.so.1 cannot be loaded\)"),
        (Driver([], init=100), r"no CUDA-capable device is detected \(error 100\)"),
        (Driver([]), "finds no GPU here"),
        (Driver(["Tesla T4"], version=12040), "driver of Tesla T4 takes CUDA 12.4 at most"),
    ],
)
def test_a_machine_without_one_says_why(
    monkeypatch: pytest.MonkeyPatch, driver: Driver | None, words: str
) -> None:
    give(monkeypatch, driver)
    with pytest.raises(UnsupportedError, match=words) as problem:
        ort.accelerator({"provider": "cuda"})
    assert problem.value.hint


def test_gpus_that_the_environment_hides_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, Driver([], init=100))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UnsupportedError, match="CUDA_VISIBLE_DEVICES is ''"):
        _nvidia.find_gpu()


def test_the_provider_chooses_the_tool() -> None:
    runtime = runtimes()["onnxruntime"]
    check_plugin(runtime)
    assert runtime.choose_tool({"provider": "cuda"}) == "cuda"
    assert runtime.choose_tool({"provider": "cpu"}) == runtime.choose_tool({}) == ""
    assert runtimes()["openvino"].choose_tool({"provider": "cuda"}) == "openvino"
    for name, provider in _providers.CHOICES.items():
        assert provider.tool in {"", *TOOLS}, name
        assert not provider.tool or TOOLS[provider.tool].gpu == (provider.device == "gpu")


def test_fp32_is_fp32_unless_it_is_asked_for_otherwise() -> None:
    cuda = _providers.CHOICES["cuda"]
    assert cuda.make_settings(tf32=False)["use_tf32"] == "0"
    assert cuda.make_settings(tf32=True)["use_tf32"] == "1"
    assert _providers.CHOICES["cpu"].make_settings(tf32=True) == {}
    assert ort.DEFAULTS["tf32"] is False


def write(folder: Path) -> Path:
    (folder / "model.onnx").write_bytes(linear().SerializeToString())
    return folder


def load(folder: Path, **options: Any) -> Any:
    return ort.load(folder, options=options, threads=1, precision="fp32")


def test_a_build_for_the_processor_is_no_build_for_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, Driver(["NVIDIA H200"]))
    with pytest.raises(StepError, match="has no CUDAExecutionProvider") as problem:
        load(write(tmp_path), provider="cuda")
    assert "mconv setup --tool cuda" in str(problem.value.hint)


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """onnxruntime here runs everything on the processor, whatever is claimed."""
    give(monkeypatch, Driver(["NVIDIA H200"]))
    cuda = _providers.CHOICES["cuda"]._replace(load=None, **changes)
    monkeypatch.setitem(_providers.CHOICES, "cuda", cuda)


def test_a_provider_that_did_not_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime would answer from the processor without a word."""
    import onnxruntime

    pretend_cuda(monkeypatch)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    with pytest.raises(StepError, match="did not start CUDAExecutionProvider") as problem:
        load(write(tmp_path), provider="cuda")
    assert "would have run on the CPU" in problem.value.message
    assert "libonnxruntime_providers_cuda.so: cannot open" in problem.value.message


def test_libraries_that_are_missing_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError("libcudart.so.13: no such file")

    pretend_cuda(monkeypatch)
    cuda = _providers.CHOICES["cuda"]._replace(engine=CPU, load=refuse)
    with pytest.raises(StepError, match=r"cannot be loaded: libcudart.so.13"):
        cuda.prepare()


def test_a_session_on_a_gpu_tells_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch, engine=CPU, settings={}, tf32="")
    session = load(write(tmp_path), provider="cuda")
    session.run({"x": np.ones((2, 8), np.float32)})
    placed = session.placement()
    assert (placed.device, placed.adapter) == ("gpu", "NVIDIA H200")
    assert placed.witnesses == ("profile", "assignment of nodes")
    assert placed.nodes == 2
    assert session.details()["adapter"] == "NVIDIA H200"
    assert session.session.get_session_options().use_deterministic_compute
    assert "adapter" not in load(tmp_path).details()


def test_libraries_of_two_layers_are_found_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    files = {
        "layer": ["cudnn/lib/libcudnn.so.9", "cu13/lib/libcufft.so.12"],
        "own": [
            "cu13/lib/libcublas.so.13",
            "cu13/lib/libcublasLt.so.13",
            "cudnn/lib/libcudnn.so.9",
        ],
        "other": ["cu12/lib/libcurand.so.10"],
    }
    for entry, names in files.items():
        for name in names:
            path = tmp_path / entry / "nvidia" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path / entry) for entry in files])
    monkeypatch.setattr(_nvidia.ctypes, "CDLL", lambda name, mode=0: loaded.append(name))
    _nvidia.load_libraries(13)
    assert [str(Path(name).relative_to(tmp_path)) for name in loaded] == [
        "own/nvidia/cu13/lib/libcublasLt.so.13",
        "own/nvidia/cu13/lib/libcublas.so.13",
        "layer/nvidia/cu13/lib/libcufft.so.12",
        "layer/nvidia/cudnn/lib/libcudnn.so.9",
    ]


def place(kernels: list[Kernel], assigned: list[Kernel] | None = None) -> Any:
    assigned = kernels if assigned is None else assigned
    return place_kernels(CUDA, kernels, assigned, device="gpu", adapter="NVIDIA H200")


PRODUCT = Kernel("product", "MatMul", CUDA)


def test_a_node_that_fell_back_is_named() -> None:
    placed = place([PRODUCT, Kernel("determinant", "Det", CPU)])
    assert (placed.nodes, placed.elsewhere, placed.allowed) == (1, {"Det": 1}, {})
    assert placed.strays == ("determinant",)


def test_shape_arithmetic_may_run_on_the_processor() -> None:
    placed = place([PRODUCT, Kernel("sizes", "Concat", CPU, is_shape_arithmetic=True)])
    assert (placed.elsewhere, placed.allowed, placed.strays) == ({"Concat": 1}, {"Concat": 1}, ())
    # the same operator on large tensors, or on floats, may not
    placed = place([PRODUCT, Kernel("join", "Concat", CPU)])
    assert (placed.elsewhere, placed.allowed, placed.strays) == ({"Concat": 1}, {}, ("join",))


def test_copies_are_no_evidence() -> None:
    placed = place([Kernel("to", "MemcpyFromHost", CUDA), Kernel("d", "Det", CPU)])
    assert (placed.nodes, placed.elsewhere) == (0, {"Det": 1})


def test_a_branch_that_was_not_taken_counts() -> None:
    """No sample came by, and the assignment shows it."""
    kept = [PRODUCT, Kernel("rare", "Det", CPU), Kernel("fold", "Gather", CPU)]
    placed = place([PRODUCT], kept)
    # onnxruntime folds arithmetic of shapes after it has assigned it
    assert (placed.elsewhere, placed.allowed, placed.strays) == ({"Det": 1}, {}, ("rare",))
    # what ran, too, is not counted twice
    assert place([PRODUCT, kept[1]], kept).elsewhere == {"Det": 1}


def test_without_a_profile_there_is_no_evidence() -> None:
    placed = place([], [PRODUCT])
    assert (placed.nodes, placed.witnesses) == (0, ())


def test_on_the_processor_nothing_is_allowed_elsewhere() -> None:
    stray = Kernel("sizes", "Concat", CUDA, is_shape_arithmetic=True)
    placed = place_kernels(CPU, [stray], None, device="cpu", adapter=None)
    assert (placed.nodes, placed.allowed, placed.strays) == (0, {}, ("sizes",))


def test_few_of_many_strays_are_named() -> None:
    many = [Kernel(f"d{index}", "Det", CPU) for index in range(50)]
    placed = place([*many, *many])
    assert placed.elsewhere == {"Det": 100}
    assert placed.strays == tuple(f"d{index}" for index in range(_profiles.MOST_STRAYS))


def test_a_profile_is_read_with_names_and_kinds(tmp_path: Path) -> None:
    def event(name: str, **args: Any) -> dict[str, Any]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "args": args}

    whole = [{"int64": [2]}]
    events = [
        {"cat": "Session", "name": "model_run"},
        {"cat": "Node", "name": "x_fence_before", "args": {"op_name": "Det"}},
        event("/a/b", op_name="Det", provider=CPU, input_type_shape=[{"float": [2, 2]}]),
        event("s", op_name="Mul", provider=CPU, input_type_shape=whole, output_type_shape=whole),
        event("?", provider=CUDA),
    ]
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(events))
    assert _profiles.read_kernels(path) == [
        Kernel("/a/b", "Det", CPU),
        Kernel("s", "Mul", CPU, is_shape_arithmetic=True),
        Kernel("?", "?", CUDA),
    ]


def test_the_assignment_shows_the_bodies_of_control_flow(tmp_path: Path) -> None:
    """What this onnxruntime itself says of a graph with two branches, of which one is taken."""

    def body(name: str, operator: str) -> onnx.GraphProto:
        node = helper.make_node(operator, ["x"], [name], name=f"{name}_node")
        return helper.make_graph(
            [node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]
        )

    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], name="most", keepdims=0),
        helper.make_node("Greater", ["m", "limit"], ["far"], name="far"),
        helper.make_node(
            "If",
            ["far"],
            ["y"],
            name="choose",
            then_branch=body("t", "Det"),
            else_branch=body("e", "Det"),
        ),
    ]
    nodes[2].attribute[1].g.node[0].op_type = "Identity"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("limit", TensorProto.FLOAT, [], [1e9])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "model.onnx",
    )
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(_providers.RECORD_ASSIGNMENT, "1")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), options, providers=[CPU])
    assigned = ort._read_assignment(session)
    assert {each.provider for each in assigned} == {CPU}
    assert "Det" in {each.operator for each in assigned}

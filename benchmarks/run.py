"""The engine against the clock, and against the separate commands that make the same outputs.

    make setup && .venv/bin/python examples/minilm/prepare.py
    .venv/bin/python benchmarks/run.py [PART …] [--peers DIR] [--rounds N] [--json FILE]

Parts (default: all):
  peers   MiniLM to onnx fp32 and int8 and openvino fp32 and int8: one `mconv run` with an empty
  store, which verifies all four,
          against optimum-cli export onnx, optimum-cli onnxruntime quantize (per channel),
          optimum-cli export openvino and NNCF's compress_weights, each a process of its own, as
          their users run them
  again   fifty small models: cold, nothing changed, one of fifty changed
  plan    a plan of 1,000 models in 8 variants each
  models  cold runs of 1, 10, 50 and 200 small models
  cores   a cold run of 12 small models on one core and on two (taskset)
  first   from nothing but Python to a first report: a virtual environment, `pip install` of mconv's
          own packages, a run of an ONNX and of a PyTorch project to onnx:int8 and openvino:int8,
          with what they install; against everything installed at once (requirements.lock). Nothing
          comes from a cache; megabytes are those of all that lies on the disk afterwards

For each: wall seconds, CPU seconds (user and system, of all processes), peak memory (resident, of
all processes, sampled). Peers run in environments of their own, made under --peers by pip with the
versions below (TORCH_INDEX names an index of PyTorch's CPU wheels where pip's own has others);
where one cannot be made, the output says so and no ratio is given. Rounds alternate between mconv
and the peers, and the least of each is compared. Run it on a quiet machine."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mconv import hardware
from mconv.workers.memory import measure_resident

ROOT = Path(__file__).parents[1]
MINILM = ROOT / "examples/minilm/model"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mconv-peers"
SAMPLE_SECONDS = 0.1
TORCH = "torch==2.13.0"
ENVIRONMENTS = {  # optimum-onnx 0.1 needs transformers 4.57, optimum-intel 2 takes 5
    "onnx": ("optimum-onnx[onnxruntime]==0.1.0", "transformers==4.57.6"),
    "openvino": ("optimum-intel[openvino]==2.2.0", "nncf==3.4.0", "openvino==2026.4.1"),
}
NNCF = """
import sys, nncf, openvino
model = openvino.Core().read_model(sys.argv[1])
compressed = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
openvino.save_model(compressed, sys.argv[2], compress_to_fp16=False)
"""
FRAMEWORKS = (
    "numpy",
    "onnx",
    "onnxruntime",
    "torch",
    "transformers",
    "tensorflow",
    "openvino",
    "nncf",
)
LOADED = f"""
import sys
from mconv.__main__ import main
code = main(sys.argv[1:])
print("LOADED", *(m for m in {FRAMEWORKS} if m in sys.modules))
sys.exit(code)
"""


class Cost(NamedTuple):
    """Of one command: wall and CPU seconds, peak resident bytes of its processes together."""

    wall: float
    cpu: float
    peak: int

    def __str__(self) -> str:
        return f"{self.wall:7.2f} s wall  {self.cpu:7.2f} s CPU  {self.peak / 1e6:7.0f} MB"


class CommandError(Exception):
    """A command failed; the message has the end of what it said."""


def timed(
    argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> tuple[Cost, str]:
    """Run a command; its cost and output. Raises CommandError."""
    peak = 0
    with tempfile.TemporaryFile() as log:
        begin = time.monotonic()
        process = subprocess.Popen(
            [str(a) for a in argv],
            cwd=cwd,
            env=env,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        ended = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not ended.wait(SAMPLE_SECONDS):
                peak = max(peak, measure_resident(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - begin
        ended.set()
        watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        said = log.read().decode("utf-8", "replace")
    if process.returncode:
        raise CommandError(
            f"{' '.join(map(str, argv))} ended with {process.returncode}: …{said[-600:]}"
        )
    return Cost(wall, usage.ru_utime + usage.ru_stime, peak), said


def mconv(folder: Path, *argv: str, prefix: Sequence[str] = ()) -> tuple[Cost, str]:
    """`mconv ARGV` in ``folder``. What it says ends with the frameworks that its main process
    loaded."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return timed([*prefix, sys.executable, "-c", LOADED, *argv], cwd=folder, env=env)


def environments(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The peers' environments, made where they are not there yet: name → bin folder; and why some
    cannot be made."""
    found, missing = {}, {}
    index = (
        ["--extra-index-url", os.environ["TORCH_INDEX"]] if os.environ.get("TORCH_INDEX") else []
    )
    for name, wanted in ENVIRONMENTS.items():
        binaries = folder / name / "bin"
        ready = folder / name / "ready.json"
        if not ready.is_file() or json.loads(ready.read_text()) != [TORCH, *wanted]:
            print(f"making the environment of {', '.join(wanted)} in {folder / name} …", flush=True)
            try:
                timed([sys.executable, "-m", "venv", "--clear", folder / name])
                pip = [binaries / "python", "-m", "pip", "install", "--quiet", *index]
                timed([*pip, TORCH])
                timed([*pip, TORCH, *wanted])
                broken = subprocess.run(
                    [binaries / "python", "-c", "import torchvision"], capture_output=True
                ).returncode
                if broken:  # built for another PyTorch than the CPU one; text models need none
                    subprocess.run(
                        [binaries / "python", "-m", "pip", "uninstall", "-y", "-q", "torchvision"],
                        capture_output=True,
                    )
            except CommandError as problem:
                missing[name] = str(problem)
                continue
            ready.write_text(json.dumps([TORCH, *wanted]))
        found[name] = binaries
    return found, missing


def peer_commands(at: Mapping[str, Path], out: Path) -> dict[str, list[str | Path]]:
    """The separate commands, in the order in which they build on one another."""
    flags = set(hardware.describe_cpu().details["instruction_sets"])
    kernel = "--avx512_vnni" if "avx512_vnni" in flags else "--avx2"
    commands: dict[str, list[str | Path]] = {}
    if "onnx" in at:
        cli = at["onnx"] / "optimum-cli"
        commands["optimum-cli export onnx"] = [
            cli,
            "export",
            "onnx",
            "--model",
            MINILM,
            "--task",
            "feature-extraction",
            out / "onnx",
        ]
        commands["optimum-cli onnxruntime quantize"] = [
            *(
                cli,
                "onnxruntime",
                "quantize",
                "--onnx_model",
                out / "onnx",
                kernel,
                "--per_channel",
                "-o",
                out / "onnx-int8",
            )
        ]
    if "openvino" in at:
        cli = at["openvino"] / "optimum-cli"
        commands["optimum-cli export openvino"] = [
            *(
                cli,
                "export",
                "openvino",
                "--model",
                MINILM,
                "--task",
                "feature-extraction",
                "--weight-format",
                "fp32",
                out / "ov",
            )
        ]
        made = out / "ov-int8" / "openvino_model.xml"
        commands["NNCF compress_weights"] = [
            at["openvino"] / "python",
            "-c",
            NNCF,
            out / "ov" / "openvino_model.xml",
            made,
        ]
    return commands


def part_peers(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One run of mconv against four commands."""
    at, missing = environments(args.peers)
    shutil.copytree(MINILM, folder / "model")
    (folder / "models.yml").write_text(
        "version: 1\nmodels:\n  - name: minilm\n    source: model\n    targets:\n"
        "      - onnx: {precision: [fp32, int8]}\n      - openvino: {precision: [fp32, int8]}\n"
    )
    env = {**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, "HF_HUB_OFFLINE": "1"}
    ours: list[Cost] = []
    theirs: dict[str, list[Cost]] = {}
    for turn in range(args.rounds):
        cost, said = mconv(
            folder,
            "run",
            "--no-measure",
            "--store",
            f"store{turn}",
            "--out",
            f"out{turn}",
            "--trace",
            "trace.json",
        )
        if "all 4 variants passed" not in said:
            raise CommandError(f"mconv did not pass all variants: {said[-600:]}")
        ours.append(cost)
        print(f"  mconv run, 4 outputs verified        {cost}", flush=True)
        out = folder / f"peers{turn}"
        (out / "ov-int8").mkdir(parents=True)
        for name, command in peer_commands(at, out).items():
            try:
                cost, _ = timed(command, cwd=folder, env=env)
            except CommandError as problem:
                missing[name] = str(problem)
                continue
            theirs.setdefault(name, []).append(cost)
            print(f"  {name:36} {cost}", flush=True)
    best = min(c.wall for c in ours)
    total = sum(min(c.wall for c in costs) for costs in theirs.values())
    for name, reason in missing.items():
        print(f"  {name}: not run: {reason}")
    ratio = best / total if not missing and len(theirs) == 4 else None
    said = (
        f"{ratio:.2f} of the peers' {total:.1f} s" if ratio else "no ratio, since not all peers ran"
    )
    print(f"  mconv {best:.1f} s: {said}")
    if args.trace:
        shutil.copyfile(folder / "trace.json", args.trace)
    return {"mconv": ours, "peers": theirs, "missing": missing, "ratio": ratio}


def small(seed: int, width: int = 64) -> onnx.ModelProto:
    """[batch, 64] through three layers; every seed has other weights."""
    rng = np.random.default_rng(seed)
    weights = [
        (rng.standard_normal((width, width)) / width**0.5).astype(np.float32) for _ in range(3)
    ]
    nodes, last = [], "x"
    for layer in range(3):
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"m{layer}"]))
        last = f"m{layer}"
        if layer < 2:
            nodes.append(helper.make_node("Relu", [last], [f"r{layer}"]))
            last = f"r{layer}"
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["batch", width])],
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def project(folder: Path, count: int, targets: str) -> Path:
    """A manifest of ``count`` small models."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        (folder / f"m{index}.onnx").write_bytes(small(index).SerializeToString())
    lines = [
        f"  - {{name: m{index}, source: m{index}.onnx, targets: [{targets}]}}"
        for index in range(count)
    ]
    (folder / "models.yml").write_text("version: 1\nmodels:\n" + "\n".join(lines) + "\n")
    return folder


def part_again(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Fifty models, two targets each."""
    project(folder, 50, "onnx, 'onnx:int8'")
    found: dict[str, Any] = {}
    found["cold"], _ = mconv(folder, "run", "--no-measure")
    print(f"  cold                                 {found['cold']}", flush=True)
    time.sleep(3)  # what is younger than two seconds is not remembered
    for name in ("nothing changed, first", "nothing changed, second", "nothing changed, third"):
        found[name], said = mconv(folder, "run", "--no-measure")
        loaded = said.rpartition("LOADED")[2].split()
        print(
            f"  {name:36} {found[name]}  frameworks loaded: {', '.join(loaded) or 'none'}",
            flush=True,
        )
        found["loaded"] = loaded
    (folder / "m7.onnx").write_bytes(small(1007).SerializeToString())
    found["one of fifty changed"], said = mconv(folder, "run", "--no-measure")
    print(f"  one of fifty changed                 {found['one of fifty changed']}", flush=True)
    return found


def part_plan(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """1,000 models, eight variants each."""
    project(
        folder,
        1000,
        "onnx, 'onnx:fp16', 'onnx:int8', openvino, 'openvino:fp16', 'openvino:int8', wasm, webgpu",
    )
    costs = [mconv(folder, "plan")[0] for _ in range(args.rounds)]
    for cost in costs:
        print(f"  1,000 models × 8 variants            {cost}", flush=True)
    return {"plan": costs}


def part_models(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """How a cold run grows with the number of models."""
    found = {}
    for count in (1, 10, 50, 200):
        found[str(count)], _ = mconv(
            project(folder / str(count), count, "onnx"), "run", "--no-measure"
        )
        print(
            f"  {count:3} models: {found[str(count)].wall / count:6.2f} s each       "
            f"{found[str(count)]}",
            flush=True,
        )
    return found


def part_cores(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The same run on one core and on two."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2 or not shutil.which("taskset"):
        print("  not run: it needs two cores and taskset")
        return {}
    project(folder, 12, "onnx, 'onnx:int8', openvino")
    found = {}
    for count in (1, 2):
        mask = ",".join(map(str, usable[:count]))
        argv = ("run", "--no-measure", "--store", f"store{count}", "--out", f"out{count}")
        found[str(count)], _ = mconv(folder, *argv, prefix=("taskset", "-c", mask))
        print(f"  {count} cores                              {found[str(count)]}", flush=True)
    print(f"  {found['1'].wall / found['2'].wall:.2f} times as quick on two")
    return found


def part_first(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds and megabytes from nothing to a first report."""
    figures: dict[str, Any] = {}
    projects = {
        "ONNX": (ROOT / "examples/ready", ["*/onnx/int8", "*/openvino/int8"]),
        "PyTorch": (ROOT / "examples/digits", ["digits/onnx/int8", "digits/openvino/int8"]),
    }
    for what, locked in (("own packages", False), ("all at once", True)):
        for name, (project, only) in projects.items():
            place = folder / f"{what}-{name}".replace(" ", "-")
            place.mkdir(parents=True)
            figure = first_report(place, locked, project, only)
            figures[f"{name}, {what}"] = figure
            print(
                f"  {name + ', ' + what:<24} install {figure['install']:6.1f} s, "
                f"{figure['own_megabytes']:5.0f} MB; report {figure['report']:6.1f} s, "
                f"{figure['megabytes']:5.0f} MB in all",
                flush=True,
            )
            shutil.rmtree(place)
    return figures


def first_report(place: Path, locked: bool, project: Path, only: Sequence[str]) -> dict[str, float]:
    """Seconds of the installation and of the first run, megabytes after each."""
    subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
    empty = count_megabytes(place / "venv")
    index = os.environ.get("TORCH_INDEX")
    pip = [place / "venv/bin/pip", "install", "--quiet", "--no-cache-dir"]
    pip += ["--extra-index-url", index] if index else []
    begin = time.perf_counter()
    if locked:
        run_quietly([*pip, "-r", ROOT / "requirements.lock"])
    run_quietly([*pip, *["--no-deps"] * locked, ROOT])
    installed = time.perf_counter() - begin
    own = count_megabytes(place / "venv") - empty
    ignored = shutil.ignore_patterns("out", ".mconv", "__pycache__")
    shutil.copytree(project, place / "project", ignore=ignored)
    patterns = [word for pattern in only for word in ("--only", pattern)]
    own_tools = os.pathsep.join(
        entry for entry in os.environ["PATH"].split(os.pathsep) if not Path(entry, "uv").exists()
    )
    variables = {n: v for n, v in os.environ.items() if n.startswith(("PIP_", "SSL_"))}
    variables |= {"PATH": own_tools, "HOME": str(place)}
    begin = time.perf_counter()
    run_quietly([place / "venv/bin/mconv", "run", *patterns], place / "project", variables)
    reported = time.perf_counter() - begin
    shutil.rmtree(place / ".cache", ignore_errors=True)  # the same files by other names
    more = place / "project/.mconv"
    return {
        "install": installed,
        "report": reported,
        "own_megabytes": own,
        "megabytes": own + count_megabytes(more),
    }


def run_quietly(
    argv: Sequence[str | Path], where: Path | None = None, env: Mapping[str, str] | None = None
) -> None:
    """Run a command, and raise CommandError with what it printed where it fails."""
    done = subprocess.run(argv, cwd=where, env=env, capture_output=True, text=True)
    if done.returncode:
        raise CommandError(f"{argv[0]} ended with {done.returncode}: {done.stderr[-2000:]}")


def count_megabytes(folder: Path) -> float:
    """What a folder takes on the disk, of a file with several names once."""
    done = subprocess.run(["du", "-sk", folder], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[0]) * 1024 / 1e6


PARTS = {
    "peers": part_peers,
    "again": part_again,
    "plan": part_plan,
    "models": part_models,
    "cores": part_cores,
    "first": part_first,
}


def main() -> int:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)"
    )
    parser.add_argument(
        "--peers",
        type=Path,
        default=CACHE,
        metavar="DIR",
        help=f"the peers' environments (default: {CACHE})",
    )
    parser.add_argument(
        "--rounds", type=int, default=2, help="of the parts `peers` and `plan` (default: 2)"
    )
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="keep the trace of the last `mconv run` of the part `peers`",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if not (MINILM / "model.safetensors").is_file() and (not args.parts or "peers" in args.parts):
        parser.error("examples/minilm is not prepared: run examples/minilm/prepare.py")
    found: dict[str, Any] = {"cores": hardware.count_cores(), "load": os.getloadavg()[0]}
    print(f"{hardware.count_cores()} cores, load {found['load']:.1f} before the first part")
    for name in args.parts or PARTS:
        print(f"{name}: {(PARTS[name].__doc__ or '').strip()}")
        with tempfile.TemporaryDirectory(prefix="mconv-bench-") as folder:
            try:
                found[name] = PARTS[name](args, Path(folder) / "bench")
            except CommandError as problem:
                print(f"  failed: {problem}", file=sys.stderr)
                return 1
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

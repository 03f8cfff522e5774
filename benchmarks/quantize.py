"""Every precision of mconv on MiniLM and the digits CNN, beside the one-call recipes of onnxruntime
and NNCF, in one run.

    make setup && for name in digits minilm; do .venv/bin/python examples/$name/prepare.py; done
    .venv/bin/python benchmarks/quantize.py [minilm|digits] … [--only LABEL …]

For each: bytes of the file, bits a weight (file over parameters), SQNR and cosine of the worst
output against the source framework on held-out samples, of text encoders the mean and the smallest
cosine of sentences (token vectors averaged under the mask), and median latency as a ratio to fp32,
all timed in alternating rounds of this one process. Peers are run as their users run them."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime

from mconv import compare, registry, samples
from mconv.manifest import reader
from mconv.onnx_graph import model_files, model_info
from mconv.planning.planner import CALIBRATION_COUNT
from mconv.proof.user_samples import read_samples

ROOT = Path(__file__).parents[1]
OURS: dict[str, tuple[str, str, dict[str, Any]]] = {  # label: quantizer, precision, options
    "fp16": ("fp16", "fp16", {}),
    "int8 dynamic": ("int8_dynamic", "int8", {}),
    "int8 static": ("int8_static", "int8-static", {}),
    "int8 weights": ("nbits", "int8", {}),
    "int4": ("nbits", "int4", {}),
    "mixed 4.3": ("nbits", "mixed", {"average_bits": 4.3}),
    "mixed 3.75": ("nbits", "mixed", {"average_bits": 3.75}),
    "int3": ("nbits", "int3", {}),
    "int2": ("nbits", "int2", {}),
}
ROUNDS, CALLS = 5, 10
Feeds = Sequence[Mapping[str, np.ndarray]]


def ort_dynamic(model: Path, out: Path, _: Feeds, **options: Any) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(str(model), str(out), **options)


def ort_nbits(model: Path, out: Path, _: Feeds) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(model), block_size=32, is_symmetric=False)
    quantizer.process()
    quantizer.model.save_model_to_file(str(out))


def nncf_weights(model: Path, out: Path, feeds: Feeds, *, mode: str, **options: Any) -> None:
    """NNCF's compress_weights on the OpenVINO graph; ``out`` becomes the .xml."""
    import nncf
    import openvino

    loaded = openvino.Core().read_model(model)
    if options:
        options["dataset"] = nncf.Dataset(list(feeds))
    made = nncf.compress_weights(loaded, mode=nncf.CompressWeightsMode[mode], **options)
    openvino.save_model(made, out.with_suffix(".xml"), compress_to_fp16=False)


PEERS: dict[str, Callable[..., None]] = {
    "onnxruntime dynamic": ort_dynamic,
    "onnxruntime dynamic, per channel": lambda m, o, f: ort_dynamic(m, o, f, per_channel=True),
    "onnxruntime 4 bits": ort_nbits,
    "NNCF int8": lambda m, o, f: nncf_weights(m, o, f, mode="INT8_ASYM"),
    "NNCF int4": lambda m, o, f: nncf_weights(
        m, o, f, mode="INT4_ASYM", group_size=32, ratio=1.0, all_layers=True
    ),
    "NNCF int4 GPTQ": lambda m, o, f: nncf_weights(
        m,
        o,
        f,
        mode="INT4_ASYM",
        group_size=32,
        ratio=1.0,
        all_layers=True,
        gptq=True,
        scale_estimation=True,
    ),
}


def runner(path: Path) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    """A call of the file at ``path``, with the outputs in their order."""
    if path.suffix == ".xml":
        import openvino

        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda feed: [np.array(v) for v in compiled(dict(feed)).values()]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda feed: session.run(None, dict(feed))


def size(path: Path) -> int:
    return sum(
        p.stat().st_size
        for p in {path, path.with_suffix(".bin"), Path(f"{path}.data")}
        if p.is_file()
    )


def benchmark(name: str, folder: Path, only: Sequence[str]) -> None:
    """Print the table of one example, of all recipes or those of the labels ``only``."""
    (config,) = reader.load(ROOT / f"examples/{name}/models.yml").models
    source = registry.sources()[config.source.format]
    model, out = source.load(config.source), folder / name
    out.mkdir()
    source.export(config.source, out)
    fp32 = out / model_files.MODEL_FILE
    if config.samples:
        held_out = read_samples(Path(config.samples), model.inputs, model.outputs).feeds
    else:
        held_out = model.samples(16, samples.SEED, {}) or []
    calibration = model.samples(CALIBRATION_COUNT, samples.SEED + 1, {}, calibration=True) or []
    if config.calibration and config.calibration.data:
        calibration = read_samples(Path(config.calibration.data), model.inputs, ()).feeds
    reference = [model.run(feed) for feed in held_out]
    made: dict[str, Path] = {"fp32": fp32}
    seconds: dict[str, float] = {"fp32": 0.0}
    for label, (quantizer, precision, options) in OURS.items():
        if only and label not in only:
            continue
        plugin = registry.quantizers()[quantizer]
        defaults = {k: s["default"] for k, s in plugin.options.items() if "default" in s}
        quantize = partial(
            plugin.quantize,
            fp32,
            precision=precision,
            options={**defaults, **options},
            calibration=calibration if plugin.calibration else None,
        )
        attempt(made, seconds, f"mconv {label}", out, quantize)
    for label, peer in PEERS.items():
        if only and label not in only:
            continue
        attempt(made, seconds, label, out, lambda path, call=peer: call(fp32, path, calibration))
    runners = {label: runner(path) for label, path in made.items()}
    times = timed(runners, held_out[0])
    parameters = model_info.describe(fp32).parameters or 1
    print(
        f"\n{name}: {parameters / 1e6:.2f} M parameters, {len(held_out)} held-out samples, cosine "
        "of the worst output"
    )
    print(
        f"{'':<34}{'MB':>8}{'bits':>7}{'SQNR dB':>9}{'cosine':>9}"
        f"{'sentence (min)':>18}{'time':>7}{'made in':>10}"
    )
    for label, path in made.items():
        answers = [dict(zip(reference[0], runners[label](feed), strict=True)) for feed in held_out]
        errors = [
            compare.compare_outputs(o, [a[o] for a in answers], [r[o] for r in reference])
            for o in reference[0]
        ]
        worst = min(errors, key=lambda e: e.cosine if e.cosine is not None else 2.0)
        ratio = times[label] / times["fp32"]
        cells = f"{size(path) / 1e6:>8.2f}{size(path) * 8 / parameters:>7.2f}"
        cells += f"{worst.sqnr_db or float('nan'):>9.1f}{worst.cosine:>9.4f}"
        found = sentences(held_out, answers, reference)
        cells += f"{np.mean(found):>9.4f} ({min(found):.4f})" if found else f"{'–':>18}"
        print(f"{label:<34}{cells}{ratio:>6.2f}×{seconds[label]:>8.1f} s", flush=True)


def sentences(feeds: Feeds, answers: Feeds, reference: Feeds) -> list[float]:
    """Cosine of each sentence: the mean of its token vectors under ``attention_mask``; empty for
    what is no text encoder."""
    name = next((n for n, array in reference[0].items() if array.ndim == 3), None)
    if name is None or "attention_mask" not in feeds[0]:
        return []
    found = []
    for feed, ours, theirs in zip(feeds, answers, reference, strict=True):
        for mask, a, r in zip(
            feed["attention_mask"].astype(bool), ours[name], theirs[name], strict=True
        ):
            x, y = a[mask].mean(0), r[mask].mean(0)
            found.append(float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y))))
    return found


def attempt(
    made: dict[str, Path],
    seconds: dict[str, float],
    label: str,
    folder: Path,
    call: Callable[[Path], Any],
) -> None:
    """Make one file; a recipe that fails is said, and left out of the table."""
    path = folder / f"{label.replace(' ', '-').replace(',', '')}.onnx"
    begin = time.perf_counter()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            call(path)
    except Exception as problem:  # of a peer, whatever it is
        print(
            f"{label}: {type(problem).__name__}: {' '.join(str(problem).split())[:200]}",
            file=sys.stderr,
        )
        return
    made[label] = path if path.is_file() else path.with_suffix(".xml")
    seconds[label] = time.perf_counter() - begin


def timed(
    runners: Mapping[str, Callable[[Any], Any]], feed: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Median seconds a call, rounds alternating between all."""
    found: dict[str, list[float]] = {label: [] for label in runners}
    for _ in range(ROUNDS + 1):
        for label, call in runners.items():
            for _ in range(CALLS):
                begin = time.perf_counter()
                call(feed)
                found[label].append(time.perf_counter() - begin)
    return {label: float(np.median(t[CALLS:])) for label, t in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="digits|minilm")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=[*OURS, *PEERS],
        metavar="LABEL",
        help="this recipe; repeatable",
    )
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names or ("digits", "minilm"):
            benchmark(name, Path(folder), args.only)
    print(msgspec.json.encode({"onnxruntime": onnxruntime.__version__}).decode())


if __name__ == "__main__":
    main()

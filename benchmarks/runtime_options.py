"""What the options of the runtimes are worth: MiniLM, each option beside the default, latency and
answers of both.

    python benchmarks/runtime_options.py [examples/minilm/model] [OUT]

Sessions of one artifact with and without the option take turns in one process, on one thread. What
counts is processor time, which a busy machine changes little: [8, 64] tokens."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from mconv import api, registry

CASES: dict[str, list[dict[str, Any]]] = {
    "openvino:fp32": [{"inference_precision": "bf16"}],
    "openvino:int8": [{"inference_precision": "bf16"}, {"dynamic_quantization": 0}],
    "openvino:int4": [{"dynamic_quantization": 0}],
    "onnx:fp32": [{"graph_optimization": "none"}, {"arena": False}],
    "onnx:int8": [{"graph_optimization": "none"}],
}
ROUNDS, RUNS = 10, 3


def main(source: str = "examples/minilm/model", out: str = "out/runtime-options") -> None:
    api.convert(source, list(CASES), out=Path(out), measure=False)
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, 30000, (8, 64))
    feed = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }
    print(
        "| Variant | Option | quickest, ms | of the default's | median | cosine to the default's "
        "|\n|---|---|---|---|---|---|"
    )
    for case, options in CASES.items():
        target, _, precision = case.partition(":")
        folder = next(Path(out).glob(f"*/{target}-{precision}"))
        runtime = registry.runtimes()[registry.targets()[target].runtimes[0]]
        sessions = [
            runtime.load(folder, options=o, threads=1, precision=precision) for o in ({}, *options)
        ]
        given = {s.name: feed[s.name].astype(s.dtype) for s in sessions[0].inputs}
        answers = [next(iter(s.run(given).values())).ravel() for s in sessions]
        times: list[list[float]] = [[] for _ in sessions]
        for _ in range(ROUNDS):
            for session, kept in zip(sessions, times, strict=True):
                for _ in range(RUNS):
                    start = time.process_time()
                    session.run(given)
                    kept.append((time.process_time() - start) * 1e3)
        for option, kept, answer in zip(({}, *options), times, answers, strict=True):
            cosine = float(
                answer @ answers[0] / np.linalg.norm(answer) / np.linalg.norm(answers[0])
            )
            said = ", ".join(f"`{k}: {str(v).lower()}`" for k, v in option.items()) or "none"
            shares = [min(kept) / min(times[0]), float(np.median(kept) / np.median(times[0]))]
            print(
                f"| {case} | {said} | {min(kept):.1f} | {shares[0]:.2f} | {shares[1]:.2f} | "
                f"{cosine:.5f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])

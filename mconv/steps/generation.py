"""The check of models that write text: greedy tokens of the artifact's parts against those of the
source framework's own loop.

Outputs of one call can be right to the last digit and generation still be wrong: a cache fed to the
wrong input, a mask that does not grow, a decoder with past that does not go with the encoder.
Tokens are compared in order; after a first difference the two loops read different text, so the
share that agrees says how far they went together, not how right the rest is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mconv import registry, samples
from mconv.answers import ReferenceAnswer, VerifyAnswer
from mconv.errors import StepError
from mconv.onnx_graph import model_files, model_info
from mconv.steps._loaded import load_artifact
from mconv.steps.requests import Folders, ReferenceRequest, VerifyRequest
from mconv.values import Generation

if TYPE_CHECKING:
    import numpy as np

FILE = "generation.npz"
TOKENS = "tokens"  # the source's, beside a prompt's own arrays


def prepare(
    request: ReferenceRequest, folders: Folders, out: Path, answer: ReferenceAnswer
) -> ReferenceAnswer:
    """Write prompts and the source's tokens where the model generates.

    A note says where generation cannot be checked, since lengths are fixed, which grow from step to
    step."""
    source = registry.sources()[request.source.format]
    if "export" not in folders or source.prompts is None:
        return answer
    prompts = source.prompts(request.source)
    if not prompts:
        return answer
    lengths = [
        spec.shape[1]
        for path in folders["export"].rglob(model_files.MODEL_FILE)
        for spec in model_info.describe(path).inputs
        if spec.name == "input_ids" and len(spec.shape) == 2
    ]
    fixed = any(isinstance(length, int) and length != 1 for length in lengths)
    if request.static or request.shapes or fixed:
        note = "generation is not checked: it needs a length that is free"
        return msgspec.structs.replace(answer, notes=(*answer.notes, note))
    samples.save_feeds(out / FILE, prompts)
    return answer


def check(request: VerifyRequest, folders: Folders, _: Path, answer: VerifyAnswer) -> VerifyAnswer:
    """Decode with the artifact where :func:`prepare` wrote prompts, and add how its tokens compare.

    Raises StepError where a part does not take a feed.
    """
    config = request.source
    if config is None or not (folders["reference"] / FILE).is_file():
        return answer
    source = registry.sources()[config.format]
    if source.generate is None:
        raise StepError(f"{config.format} sources have prompts, but no generate()")
    several = len(request.parts) > 1
    with ExitStack() as stack:
        run = {}
        for part in request.parts or ("",):
            folder = folders["artifact"] / part if several else folders["artifact"]
            session = load_artifact(request.artifact, folder)
            stack.callback(session.close)
            run[part] = session.run
        wanted, got = [], []
        for prompt in samples.load_feeds(folders["reference"] / FILE):
            tokens = prompt.pop(TOKENS)
            wanted.append(tokens)
            got.append(source.generate(config, run, prompt, tokens.shape[1]))
    return msgspec.structs.replace(answer, generation=compare(wanted, got))


def compare(wanted: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> Generation:
    """``wanted`` and ``got``: int64 [rows, steps] each. Raises StepError where shapes differ."""
    import numpy as np

    agreeing, total, first = 0, 0, None
    for want, made in zip(wanted, got, strict=True):
        if want.shape != made.shape:
            raise StepError(
                f"generation gave tokens of shape {list(made.shape)}, the source {list(want.shape)}"
            )
        same = want == made
        agreeing, total = agreeing + int(same.sum()), total + same.size
        if not same.all():
            row, step = (
                int(i) for i in min(np.argwhere(~same).tolist(), key=lambda at: (at[1], at[0]))
            )
            if first is None or step < first[0]:
                first = (step, int(want[row, step]), int(made[row, step]))
    return Generation(
        tokens=total,
        steps=max(w.shape[1] for w in wanted),
        agreement=agreeing / total,
        first_difference=first[0] if first else None,
        expected=first[1] if first else None,
        got=first[2] if first else None,
    )

"""The check of models that write text: greedy tokens of the artifact's parts against those of the
source framework's own loop.

Outputs of one call can be right to the last digit and generation still be wrong: a cache fed to the
wrong input, a mask that does not grow, a decoder with past that does not go with the encoder.
Tokens are compared in order; after a first difference the two loops read different text, so the
share that agrees says how far they went together, not how right the rest is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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


class Difference(NamedTuple):
    """Two tokens that should be one.

    Attributes:
        step: The step that made them, from 0.
        expected: The source's.
        got: The artifact's.
    """

    step: int
    expected: int
    got: int


def prepare(
    request: ReferenceRequest, folders: Folders, out: Path, answer: ReferenceAnswer
) -> ReferenceAnswer:
    """Write prompts and the source's tokens where the model generates.

    A note says where generation cannot be checked: lengths grow from step to step, and are fixed.
    """
    source = registry.sources()[request.source.format]
    if "export" not in folders or source.prompts is None:
        return answer
    prompts = source.prompts(request.source)
    if not prompts:
        return answer
    graphs = folders["export"].rglob(model_files.MODEL_FILE)
    if request.static or request.shapes or any(map(_has_fixed_length, graphs)):
        note = "generation is not checked: it needs a length that is free"
        return msgspec.structs.replace(answer, notes=(*answer.notes, note))
    samples.save_feeds(out / FILE, prompts)
    return answer


def _has_fixed_length(graph: Path) -> bool:
    """Return whether a graph takes texts of one length only, which is more than one token."""
    for spec in model_info.describe(graph).inputs:
        if spec.name == "input_ids" and len(spec.shape) == 2:
            length = spec.shape[1]
            return isinstance(length, int) and length != 1
    return False


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
    """Compare the artifact's tokens with the source's, prompt by prompt.

    ``wanted`` are the source's and ``got`` the artifact's: int64 [rows, steps] each. Raises
    StepError where shapes differ.
    """
    agreeing = 0
    total = 0
    first: Difference | None = None
    for source_tokens, tokens in zip(wanted, got, strict=True):
        if source_tokens.shape != tokens.shape:
            raise StepError(
                f"generation gave tokens of shape {list(tokens.shape)}, the source "
                f"{list(source_tokens.shape)}"
            )
        agreeing += int((source_tokens == tokens).sum())
        total += source_tokens.size
        difference = _find_first_difference(source_tokens, tokens)
        if difference is not None and (first is None or difference.step < first.step):
            first = difference
    return Generation(
        tokens=total,
        steps=max(tokens.shape[1] for tokens in wanted),
        agreement=agreeing / total,
        first_difference=first.step if first else None,
        expected=first.expected if first else None,
        got=first.got if first else None,
    )


def _find_first_difference(wanted: np.ndarray, got: np.ndarray) -> Difference | None:
    """Return the difference of the earliest step, in the first row that has one, or None."""
    import numpy as np

    places = np.argwhere(wanted != got).tolist()
    if not places:
        return None
    row, step = min(places, key=lambda place: (place[1], place[0]))
    return Difference(step=step, expected=int(wanted[row, step]), got=int(got[row, step]))

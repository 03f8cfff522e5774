"""Models that carry state: an output of one call is an input of the next, and verification runs
them in sequences.

The reference is the source fed its own state for ``STEPS`` calls from zeros; the artifact is fed
*its* own, so that an error which grows from call to call is found."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mconv import samples
from mconv.errors import StepError, UsageError
from mconv.values import TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Feed = Mapping[str, np.ndarray]

STEPS = 8
# beside the samples: the pairs, and the lengths of the sequences that they are one after the other
FILE = "sequences.json"


def check(
    pairs: Mapping[str, str], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> None:
    """Raises UsageError where a pair names an output or input that there is not, or two of
    different types."""
    into, out_of = {s.name: s for s in inputs}, {s.name: s for s in outputs}
    for output, name in pairs.items():
        if output not in out_of:
            raise UsageError(
                f"state: the model has no output {output!r}; it has {', '.join(out_of)}",
                hint="see `state:`",
            )
        if name not in into:
            raise UsageError(
                f"state: the model has no input {name!r}; it has {', '.join(into)}",
                hint="see `state:`",
            )
        if len(into[name].shape) != len(out_of[output].shape):
            raise UsageError(
                f"state: output {output} has {len(out_of[output].shape)} axes, input {name} "
                f"{len(into[name].shape)}",
                hint="pairs are `output: input`",
            )
    if len(pairs) == len(inputs):
        raise UsageError(
            "state: every input is state, so nothing would be new in a step",
            hint="leave out those that are not",
        )


def sequences(
    model: Any, pairs: Mapping[str, str], feeds: Sequence[Feed], lengths: Sequence[int], seed: int
) -> tuple[list[Any], list[Any], list[int]]:
    """Feeds with their state, the source's answers, and the lengths of the sequences that they are.

    ``feeds`` are sequences of ``lengths`` already where those are given (a user's file), else each
    begins one of ``STEPS``."""
    if lengths:
        starts = [sum(lengths[:i]) for i in range(len(lengths))]
        steps = [
            list(feeds[start : start + length])
            for start, length in zip(starts, lengths, strict=True)
        ]
    else:
        steps = []
        for index, start in enumerate(feeds):
            draw: dict[str, Any] = {
                "count": STEPS,
                "seed": seed + 1000 + index,
                "dims": _dims(model.inputs, start),
            }
            later = model.samples(**draw)
            steps.append(
                [start, *(samples.draw_feeds(model.inputs, **draw) if later is None else later)[1:]]
            )
    ran = [follow(model.run, pairs, model.inputs, each) for each in steps]
    return (
        [f for made, _ in ran for f in made],
        [a for _, said in ran for a in said],
        [len(each) for each in steps],
    )


def follow(
    run: Callable[[Feed], Mapping[str, np.ndarray]],
    pairs: Mapping[str, str],
    inputs: Sequence[TensorSpec],
    steps: Sequence[Feed],
) -> tuple[list[Any], list[Any]]:
    """One sequence: ``steps`` with zeros for state at first, then with what ``run`` gave; the feeds
    as they were, and answers."""
    import numpy as np

    types = {s.name: s for s in inputs if s.name in pairs.values()}
    dims = _dims([s for s in inputs if s.name not in types], steps[0])
    state = {
        name: np.zeros_like(steps[0][name])
        if name in steps[0]
        else np.zeros(samples.resolve_shape(spec, 0, dims), spec.dtype)
        for name, spec in types.items()
    }
    feeds, answers = [], []
    for step in steps:
        feed = {**step, **state}
        answer = run(feed)
        feeds.append(feed)
        answers.append(answer)
        if absent := [output for output in pairs if output not in answer]:
            raise StepError(
                f"the artifact has no output {', '.join(absent)}; it gave {', '.join(answer)}"
            )
        state = {
            name: np.ascontiguousarray(answer[output], types[name].dtype)
            for output, name in pairs.items()
        }
    return feeds, answers


def _dims(inputs: Sequence[TensorSpec], feed: Feed) -> dict[str, int]:
    """Sizes of the free axes in a feed."""
    return {
        dim: size
        for spec in inputs
        if spec.name in feed
        for dim, size in zip(spec.shape, feed[spec.name].shape, strict=True)
        if isinstance(dim, str)
    }


def save(folder: Path, pairs: Mapping[str, str], lengths: Sequence[int]) -> None:
    (folder / FILE).write_text(
        json.dumps({"state": dict(pairs), "lengths": list(lengths)}, sort_keys=True) + "\n"
    )


def answers(session: Any, feeds: Sequence[Feed], folder: Path) -> tuple[list[Any], str | None]:
    """The artifact's answers: feed by feed, or in sequences fed its own state where the reference
    was; then a remark says so."""
    if not (folder / FILE).is_file():
        return [session.run(feed) for feed in feeds], None
    about = json.loads((folder / FILE).read_text())
    pairs, lengths = about["state"], about["lengths"]
    given: list[Any] = []
    for length in lengths:
        part = feeds[len(given) : len(given) + length]
        specs = [TensorSpec(name=n, dtype=str(a.dtype), shape=a.shape) for n, a in part[0].items()]
        given += follow(session.run, pairs, specs, part)[1]
    shown = ", ".join(f"{output} → {name}" for output, name in pairs.items())
    return (
        given,
        f"{len(lengths)} sequences of {max(lengths)} steps, the artifact fed its own state: "
        f"{shown}",
    )

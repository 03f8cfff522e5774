"""Models that carry state: an output of one call is an input of the next, and verification runs
them in sequences.

The reference is the source fed its own state for ``STEPS`` calls from zeros; the artifact is fed
*its* own, so that an error which grows from call to call is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mconv import registry, samples
from mconv.errors import StepError, UsageError
from mconv.values import Frozen, TensorSpec, from_json, to_json

if TYPE_CHECKING:
    import numpy as np

    Feed = Mapping[str, np.ndarray]
    Answer = Mapping[str, np.ndarray]

    class Answering(Protocol):
        """What answers a feed: a session, or a model."""

        def run(self, feed: Feed) -> Answer:
            """Return the outputs by name."""


STEPS = 8
FILE = "sequences.json"  # beside the samples


class Sequences(Frozen, frozen=True, kw_only=True):
    """The content of ``sequences.json``: how the samples follow one another.

    Attributes:
        state: Outputs that are inputs of the next call: output → input.
        lengths: How many calls each sequence has; the samples are the sequences one after another.
    """

    state: dict[str, str]
    lengths: tuple[int, ...]


def check_pairs(
    pairs: Mapping[str, str], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> None:
    """Raise UsageError where a pair names an output or input that there is not, or two that do not
    go together.
    """
    inputs_by_name = {spec.name: spec for spec in inputs}
    outputs_by_name = {spec.name: spec for spec in outputs}
    for output, name in pairs.items():
        if output not in outputs_by_name:
            raise UsageError(
                f"state: the model has no output {output!r}; it has {', '.join(outputs_by_name)}",
                hint="see `state:`",
            )
        if name not in inputs_by_name:
            raise UsageError(
                f"state: the model has no input {name!r}; it has {', '.join(inputs_by_name)}",
                hint="see `state:`",
            )
        output_axes = len(outputs_by_name[output].shape)
        input_axes = len(inputs_by_name[name].shape)
        if input_axes != output_axes:
            raise UsageError(
                f"state: output {output} has {output_axes} axes, input {name} {input_axes}",
                hint="pairs are `output: input`",
            )
    if len(pairs) == len(inputs):
        raise UsageError(
            "state: every input is state, so nothing would be new in a step",
            hint="leave out those that are not",
        )


def run_sequences(
    model: registry.Model,
    pairs: Mapping[str, str],
    feeds: Sequence[Feed],
    lengths: Sequence[int],
    seed: int,
) -> tuple[list[Feed], list[Answer], list[int]]:
    """Return feeds with their state, the source's answers to them, and the lengths of the sequences
    that they are.

    ``feeds`` are sequences of ``lengths`` already where those are given (a user's file), else each
    begins one of ``STEPS``.
    """
    if lengths:
        sequences = list(_cut(feeds, lengths))
    else:
        sequences = [
            _continue(model, first, seed + 1000 + index) for index, first in enumerate(feeds)
        ]
    all_feeds: list[Feed] = []
    all_answers: list[Answer] = []
    for steps in sequences:
        own_feeds, own_answers = follow_sequence(model.run, pairs, model.inputs, steps)
        all_feeds += own_feeds
        all_answers += own_answers
    return all_feeds, all_answers, [len(steps) for steps in sequences]


def _cut(feeds: Sequence[Feed], lengths: Sequence[int]) -> Iterator[list[Feed]]:
    """Yield the sequences of ``lengths`` that ``feeds`` are one after another."""
    start = 0
    for length in lengths:
        yield list(feeds[start : start + length])
        start += length


def _continue(model: registry.Model, first: Feed, seed: int) -> list[Feed]:
    """Return ``STEPS`` feeds of one sequence, which begins with ``first``."""
    dims = _read_dims(model.inputs, first)
    feeds: Sequence[Feed] | None = model.samples(STEPS, seed, dims)
    if feeds is None:
        feeds = samples.draw_feeds(model.inputs, count=STEPS, seed=seed, dims=dims)
    return [first, *feeds[1:]]


def follow_sequence(
    run: Callable[[Feed], Answer],
    pairs: Mapping[str, str],
    inputs: Sequence[TensorSpec],
    steps: Sequence[Feed],
) -> tuple[list[Feed], list[Answer]]:
    """Run one sequence: ``steps`` with zeros for state at first, then with what ``run`` gave.

    Returns the feeds as they were, and the answers. Raises StepError where an answer lacks an
    output that is state.
    """
    import numpy as np

    state_specs = {spec.name: spec for spec in inputs if spec.name in pairs.values()}
    dims = _read_dims([spec for spec in inputs if spec.name not in state_specs], steps[0])
    state: dict[str, np.ndarray] = {}
    for name, spec in state_specs.items():
        if name in steps[0]:
            state[name] = np.zeros_like(steps[0][name])
        else:
            state[name] = np.zeros(samples.resolve_shape(spec, 0, dims), spec.dtype)
    feeds: list[Feed] = []
    answers: list[Answer] = []
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
            name: np.ascontiguousarray(answer[output], state_specs[name].dtype)
            for output, name in pairs.items()
        }
    return feeds, answers


def _read_dims(inputs: Sequence[TensorSpec], feed: Feed) -> dict[str, int]:
    """Return the sizes that free axes have in a feed, by name."""
    dims: dict[str, int] = {}
    for spec in inputs:
        if spec.name not in feed:
            continue
        for dim, size in zip(spec.shape, feed[spec.name].shape, strict=True):
            if isinstance(dim, str):
                dims[dim] = size
    return dims


def save_sequences(folder: Path, pairs: Mapping[str, str], lengths: Sequence[int]) -> None:
    """Write beside the samples in ``folder`` how they follow one another."""
    (folder / FILE).write_text(
        to_json(Sequences(state=dict(pairs), lengths=tuple(lengths))), encoding="utf-8"
    )


def answer_feeds(
    session: Answering, feeds: Sequence[Feed], folder: Path
) -> tuple[list[Answer], str | None]:
    """Return the artifact's answers, and a remark where they are of sequences.

    ``folder`` holds the samples. Feeds are answered one by one, or in sequences fed the artifact's
    own state where the reference was.
    """
    if not (folder / FILE).is_file():
        return [session.run(feed) for feed in feeds], None
    sequences = from_json((folder / FILE).read_bytes(), Sequences)
    answers: list[Answer] = []
    for steps in _cut(feeds, sequences.lengths):
        specs = [
            TensorSpec(name=name, dtype=str(array.dtype), shape=array.shape)
            for name, array in steps[0].items()
        ]
        answers += follow_sequence(session.run, sequences.state, specs, steps)[1]
    shown = ", ".join(f"{output} → {name}" for output, name in sequences.state.items())
    count, longest = len(sequences.lengths), max(sequences.lengths)
    return (
        answers,
        f"{count} sequences of {longest} steps, the artifact fed its own state: {shown}",
    )

"""The samples of a reference: what the source framework answers, in every regime that it answers
at all."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from mconv.errors import MconvError, SourceError, UsageError
from mconv.proof.domains import Domain
from mconv.proof.media import Media, fit_media
from mconv.proof.sampling import (
    LADDER,
    LONG_ROWS,
    LONGS,
    SHORT,
    Regime,
    Sizes,
    bound_size,
    choose_dims,
    draw_array,
    draw_feed,
    find_batches,
    regimes_for,
)
from mconv.proof.strength import difference, measure_strength
from mconv.samples import sizes_of
from mconv.values import (
    AxisBound,
    Frozen,
    InputDomain,
    Strength,
    TensorSpec,
    from_json,
    to_json,
)

if TYPE_CHECKING:
    import numpy as np

    Feed = Mapping[str, np.ndarray]
    Answer = Mapping[str, np.ndarray]

FILE = "regimes.json"
EXTRA_SECONDS = 20.0  # for all samples beside the typical ones


class Model(Protocol):
    """What is asked of a source."""

    inputs: tuple[TensorSpec, ...]

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> Sequence[Feed] | None:
        """Return ``count`` feeds of the source's own, or None to have them drawn."""

    def run(self, feed: Feed) -> Answer:
        """Return the framework's answer. Raises MconvError where it refuses."""


class Sample(NamedTuple):
    """One call of the source.

    Attributes:
        feed: Its inputs.
        answer: Its outputs.
        regime: What kind of inputs they are.
    """

    feed: Feed
    answer: Answer
    regime: Regime


class Regimes(Frozen, frozen=True, kw_only=True):
    """What lies beside the samples in the folder of a reference.

    Attributes:
        regimes: The regime of each sample, in order.
        guessed: Some input's domain is a guess.
        batches: Which axis of an input counts the rows of a call, of inputs that have one.
        strength: How much agreement with the answers proves.
    """

    regimes: tuple[str, ...]
    guessed: bool
    strength: Strength
    batches: dict[str, int] = {}


class Collection:
    """Collects the samples of one model."""

    def __init__(
        self,
        model: Model,
        domains: Mapping[str, Domain],
        seed: int,
        bounds: Mapping[str, AxisBound] | None = None,
    ) -> None:
        """``bounds`` are the sizes that free axes take, by name."""
        self.bounds = bounds or {}
        self.model = model
        self.domains = dict(domains)
        self.seed = seed
        self.samples: list[Sample] = []
        self.moved: dict[str, float | None] = {}
        self.refusals: list[str] = []
        self.sizes = LADDER[0]

    def add_typical(self, count: int, dims: Mapping[str, int]) -> None:
        """Add ``count`` typical samples: the source's own, or drawn from the domains in sizes that
        it takes. Raises SourceError where it answers none."""
        feeds = self._ask_source(count, self.seed, dims)
        if feeds is not None:
            self._add_all(feeds, "typical")
            self._trust_source()
            return
        first: MconvError | None = None
        best: tuple[float, list[Sample], dict[str, Domain], Sizes] | None = None
        for domains, sizes in self._attempts():
            try:
                samples = [
                    Sample(feed, self.model.run(feed), "typical")
                    for feed in self._draw(domains, sizes, count, dims)
                ]
            except MconvError as problem:
                first = first or problem
                continue
            finite = min(_share_finite(sample.answer) for sample in samples)
            if best is None or finite > best[0]:
                best = (finite, samples, domains, sizes)
            if finite == 1:
                break
        if best is not None:  # NaN is how some frameworks refuse
            _, samples, self.domains, self.sizes = best
            self.samples += samples
            return
        assert first is not None
        raise SourceError(
            f"the source answers none of the samples that were drawn for it: {first.message}",
            hint="say what its inputs take with `inputs:` (range, kind, axes), or give `samples:`",
        ) from first

    def draw(self, count: int, dims: Mapping[str, int], seed: int) -> Sequence[Feed]:
        """Return ``count`` further feeds like the typical samples that were added, with another
        seed and without asking the source."""
        feeds = self._ask_source(count, seed, dims, calibration=True)
        if feeds is not None:
            return feeds
        self.seed = seed
        return self._draw(self.domains, self.sizes, count, dims)

    def decode(self, media: Media) -> Feed:
        """Return a call with a user's picture, sound or text: by the source's own processor, or
        fitted to the input of its kind, with typical values for the others.

        Raises UsageError where the model takes none.
        """
        process = getattr(self.model, "process", None)
        if process is not None:
            feed: Feed = process(media)
            return feed
        inputs = self.model.inputs
        fitted = fit_media(media, inputs, self.domains)
        sizes = sizes_of(inputs, fitted)
        others = [spec for spec in inputs if spec.name not in fitted]
        dims = choose_dims(inputs, self.domains, 0, sizes, Sizes(single=True), self.bounds)
        drawn = draw_feed(others, self.domains, dims, seed=self.seed, index=0)
        return {spec.name: {**drawn, **fitted}[spec.name] for spec in inputs}

    def make_sized(self, sizes: Mapping[str, int]) -> Feed:
        """Return a feed of these sizes of free axes that the source answers. Raises UsageError for
        an axis that there is not, and SourceError where the source refuses."""
        free = {d for spec in self.model.inputs for d in spec.shape if isinstance(d, str)}
        unknown = [name for name in sizes if name not in free]
        if unknown:
            raise UsageError(
                f"`measure:` gives a size to {', '.join(map(repr, unknown))}, which is no free "
                "axis",
                hint=f"free axes: {', '.join(sorted(free)) or 'none'}",
            )
        for name, size in sizes.items():
            if name in self.bounds and not self.bounds[name].holds(size):
                raise UsageError(
                    f"`measure:` asks for {name} = {size}, where the model is right, or used, for "
                    f"{self.bounds[name].describe(name)} only",
                    hint="measure at a size that it takes",
                )
        feeds = self.model.samples(1, self.seed + 11, sizes)
        if feeds is None:
            inputs = self.model.inputs
            dims = choose_dims(inputs, self.domains, 0, sizes, self.sizes, self.bounds)
            feeds = [draw_feed(inputs, self.domains, dims, seed=self.seed, index=11)]
        self.model.run(feeds[0])
        return feeds[0]

    def add_user(self, feeds: Sequence[Feed]) -> None:
        """Add samples that the user gave. Raises SourceError where the source does not answer."""
        self._add_all(feeds, "user")
        self._trust_source()

    def add_sequences(self, feeds: Sequence[Feed], answers: Sequence[Answer]) -> None:
        """Add the calls of sequences that were run already, each with the state of the one
        before."""
        self.samples += [
            Sample(feed, answer, "typical") for feed, answer in zip(feeds, answers, strict=True)
        ]
        self._trust_source()

    def add_edges(self, dims: Mapping[str, int], *, sizes: bool) -> None:
        """Add a sample of every regime that the source answers, one a reaction to each input, and
        where ``sizes`` are free, short and long ones."""
        if not self.samples:
            return
        until = time.monotonic() + EXTRA_SECONDS
        # of several rows, so that one row can differ from the next
        base = self.samples[min(2, len(self.samples) - 1)].feed
        for number, spec in enumerate(self.model.inputs):
            if time.monotonic() < until:
                self._react(spec, 100 + number)
        regimes = list(regimes_for(self.domains))
        if any(d.kind == "ids" and d.origin == "graph" for d in self.domains.values()):
            regimes.append("spread")  # beside the ids that a source's own samples have
        for number, regime in enumerate(regimes):
            if time.monotonic() > until:
                return
            feed = {
                spec.name: self._redraw(spec, base, regime, 200 + number)
                for spec in self.model.inputs
            }
            self._try(feed, regime, base)
        if sizes:
            self._add_sizes(dims, until)

    def conclude(self, constants: Iterable[str] = ()) -> Regimes:
        """Return what is known of the samples together. ``constants`` are outputs that are the same
        by the graph."""
        answers = [sample.answer for sample in self.samples]
        strength = measure_strength(answers, self.moved, set(constants))
        domains = tuple(
            InputDomain(name=name, values=domain.describe(), guessed=domain.guessed)
            for name, domain in self.domains.items()
        )
        counts = Counter(sample.regime for sample in self.samples)
        strength = msgspec.structs.replace(strength, domains=domains, regimes=dict(counts))
        return Regimes(
            regimes=tuple(sample.regime for sample in self.samples),
            guessed=any(domain.guessed for domain in self.domains.values()),
            batches=self._find_parted(),
            strength=strength,
        )

    def _ask_source(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> Sequence[Feed] | None:
        """Return feeds of the source's own, of sizes that the bounds allow; None where it has
        none."""
        feeds = self.model.samples(count, seed, dims, calibration=calibration)
        if feeds is None or not self.bounds:
            return feeds
        within = []
        for index, feed in enumerate(feeds):
            outside = self._find_outside(feed)
            if outside:
                again = self.model.samples(
                    1, seed + index, {**dims, **outside}, calibration=calibration
                )
                within += list(again or ())
            else:
                within.append(feed)
        return within

    def _find_outside(self, feed: Feed) -> dict[str, int]:
        """Return the axes of a feed that the bounds do not allow, each with a size that they do."""
        outside: dict[str, int] = {}
        for dim, size in sizes_of(self.model.inputs, feed).items():
            bound = self.bounds.get(dim)
            if bound is not None and not bound.holds(size):
                outside[dim] = bound_size(size, bound, longest=True)
        return outside

    def _add_all(self, feeds: Sequence[Feed], regime: Regime) -> None:
        self.samples += [Sample(feed, self.model.run(feed), regime) for feed in feeds]

    def _trust_source(self) -> None:
        """What a source or a user gives as samples is no guess."""
        for name, domain in self.domains.items():
            if domain.guessed:
                reason = "as in the samples given"
                self.domains[name] = msgspec.structs.replace(domain, origin="source", reason=reason)

    def _attempts(self) -> list[tuple[dict[str, Domain], Sizes]]:
        """What is tried until the source answers: the domains as they are, then without negative
        and large integers, in each of the sizes."""
        choices = [self.domains]
        for high in (9, 1):
            softer = {name: _soften(domain, high) for name, domain in self.domains.items()}
            if softer != self.domains:
                choices.append(softer)
        return [(domains, sizes) for sizes in LADDER for domains in choices]

    def _draw(
        self, domains: Mapping[str, Domain], sizes: Sizes, count: int, dims: Mapping[str, int]
    ) -> list[Feed]:
        inputs = self.model.inputs
        return [
            draw_feed(
                inputs,
                domains,
                choose_dims(inputs, domains, index, dims, sizes, self.bounds),
                seed=self.seed,
                index=index,
            )
            for index in range(count)
        ]

    def _redraw(self, spec: TensorSpec, base: Feed, regime: Regime, index: int) -> np.ndarray:
        """An input of the base sample in another regime, where its domain is known or nobody gave
        it; as it was where a regime does not concern it."""
        array = base[spec.name]
        domain = self.domains[spec.name]
        if array.dtype.kind in "OUS" or (domain.origin == "source" and regime != "zeros"):
            return array
        return draw_array(spec, domain, array.shape, seed=self.seed, index=index, regime=regime)

    def _react(self, spec: TensorSpec, index: int) -> None:
        """Change one input alone, and note by how much the outputs move."""
        for base in self.samples[:2]:
            for array in self._others(spec, base.feed, index):
                if array.shape != base.feed[spec.name].shape:
                    continue
                if (array == base.feed[spec.name]).all():
                    continue
                sample = self._try({**base.feed, spec.name: array}, "reaction", base.feed)
                if sample is None:
                    continue
                change = difference(base.answer, sample.answer)
                self.moved[spec.name] = max(self.moved.get(spec.name) or 0.0, change)
                if change > 0:
                    return
        self.moved.setdefault(spec.name, None)

    def _others(self, spec: TensorSpec, base: Feed, index: int) -> list[np.ndarray]:
        """Other values of an input, of the same shape: drawn, and turned round."""
        import numpy as np

        array, domain = base[spec.name], self.domains[spec.name]
        turned = np.array(np.flip(array), order="C")
        if array.dtype.kind in "OUS":
            return [turned]
        regimes: tuple[Regime, ...] = ("masked", "typical", "edges")
        drawn = [
            draw_array(spec, domain, array.shape, seed=self.seed, index=index, regime=regime)
            for regime in regimes
        ]
        return [turned, *drawn] if domain.origin == "source" else [*drawn, turned]

    def _add_sizes(self, dims: Mapping[str, int], until: float) -> None:
        """Add a short and a long sample, where the source takes such sizes."""
        free = {
            dim
            for spec in self.model.inputs
            for axis, dim in enumerate(spec.shape)
            if isinstance(dim, str) and dim not in dims and axis and "batch" not in dim.lower()
        }
        if not free:
            return
        if any(domain.kind in ("image", "waveform") for domain in self.domains.values()):
            return
        self._add_sized(free, dims, "short", SHORT)
        for size in LONGS:
            if time.monotonic() > until:
                return
            sample = self._add_sized(free, dims, "long", size)
            if sample is not None:
                self._add_spread(sample.feed)
                return

    def _add_sized(
        self, free: set[str], dims: Mapping[str, int], regime: Regime, size: int
    ) -> Sample | None:
        """Add a sample whose ``free`` axes have a size, or that nearest to it which the bounds
        allow; None where the source takes none."""
        wanted = dict(dims)
        longest = regime == "long"
        for name in sorted(free):
            wanted[name] = bound_size(size, self.bounds.get(name), longest=longest)
        number = int(longest)
        if longest:
            for name in self._find_batch_axes() - wanted.keys():
                wanted[name] = bound_size(LONG_ROWS, self.bounds.get(name))
        inputs = self.model.inputs
        try:
            feeds = self._ask_source(1, self.seed + 7 + number, wanted)
            if feeds is None:
                sizes = choose_dims(inputs, self.domains, number, wanted, Sizes(), self.bounds)
                index = 300 + number
                feeds = [draw_feed(inputs, self.domains, sizes, seed=self.seed, index=index)]
        except Exception:  # a source need not be able to make such samples
            return None
        return self._try(feeds[0], regime, feeds[0]) if feeds else None

    def _add_spread(self, base: Feed) -> None:
        """Add a sample of the same sizes with ids out of the whole of their tables and masked ends;
        where the source does not take that, one for each input that is changed."""
        changed: dict[str, np.ndarray] = {}
        for spec in self.model.inputs:
            regime: Regime = "masked" if self.domains[spec.name].kind == "mask" else "spread"
            array = self._redraw(spec, base, regime, 400)
            if array is not base[spec.name]:
                changed[spec.name] = array
        if changed and self._try({**base, **changed}, "long", base) is None:
            for name, array in changed.items():
                self._try({**base, name: array}, "long", base)

    def _find_parted(self) -> dict[str, int]:
        """Return which axis of an input counts the rows of a call, where one row alone is a
        call."""
        bounds = [self.bounds.get(name) for name in self._find_batch_axes()]
        if any(bound is not None and not bound.holds(1) for bound in bounds):
            return {}
        return find_batches(self.model.inputs)

    def _find_batch_axes(self) -> set[str]:
        """Return the names of the free axes that count rows."""
        batches = find_batches(self.model.inputs)
        names = set()
        for spec in self.model.inputs:
            axis = spec.shape[batches[spec.name]] if spec.name in batches else None
            if isinstance(axis, str):
                names.add(axis)
        return names

    def _try(self, feed: Feed, regime: Regime, base: Feed) -> Sample | None:
        """Add a sample if the source answers it; None where it does not."""
        if feed is not base and all(feed[name] is base[name] for name in feed):
            return None
        try:
            answer = self.model.run(feed)
        except MconvError as problem:
            self.refusals.append(f"{regime}: {problem.message}")
            return None
        sample = Sample(feed, answer, regime)
        self.samples.append(sample)
        return sample


def _share_finite(answer: Answer) -> float:
    """The share of an answer's floats that are no NaN; infinities may be masks."""
    import numpy as np

    floats = [np.isnan(array).ravel() for array in answer.values() if array.dtype.kind == "f"]
    if not floats or not any(array.size for array in floats):
        return 1.0
    return 1.0 - float(np.concatenate(floats).mean())


def _soften(domain: Domain, high: int) -> Domain:
    """Integers of any size and sign as small ones that count."""
    if domain.kind != "integers" or domain.low is not None:
        return domain
    reason = "small, as others are refused"
    return msgspec.structs.replace(domain, low=0, high=high, reason=reason)


def save_regimes(folder: Path, regimes: Regimes) -> None:
    """Write what is known of a reference's samples beside them."""
    (folder / FILE).write_text(to_json(regimes))


def load_regimes(folder: Path) -> Regimes:
    """Read what :func:`save_regimes` wrote."""
    return from_json((folder / FILE).read_bytes(), Regimes)

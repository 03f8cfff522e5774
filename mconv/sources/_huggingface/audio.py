"""Audio: synthetic sound as a waveform, or as the spectrogram that the model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mconv.proof import plausible
from mconv.proof.media import Media, MediaKind, resample
from mconv.sources._huggingface.modality import Feed, FeedPlan
from mconv.values import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import transformers

RATE = 16000  # samples a second
SECONDS = 1.0  # of the shortest waveform where the length is free
SPECTROGRAM_SECONDS = 3
HOP = 160  # samples a frame of Whisper's spectrogram


class WaveformInput:
    """The input ``input_values``, float32 [batch, samples]: sound of zero mean and unit variance.

    Attributes:
        name: ``input_values``.
        media: Sounds.
        extractor: The folder's feature extractor; without one, a user's sounds are standardised.
    """

    name = "input_values"
    media: MediaKind = "sound"

    def __init__(self, extractor: transformers.FeatureExtractionMixin | None) -> None:
        self.extractor = extractor

    def list_specs(self) -> list[TensorSpec]:
        """Return the spec of the waveform."""
        return [TensorSpec(name=self.name, dtype="float32", shape=("batch", "samples"))]

    def make_feeds(self, plan: FeedPlan) -> list[Feed]:
        """Return sound for every feed, of 1, 1.25 and 1.5 seconds in turn where the length is
        free."""
        feeds = []
        for index, rows in enumerate(plan.rows):
            length = plan.sizes.get("samples", int(RATE * SECONDS * (1 + 0.25 * (index % 3))))
            waves = [
                plausible.draw_sound(length, RATE, plan.seed + 100 * index + row)
                for row in range(rows)
            ]
            feeds.append({self.name: standardise(waves)})
        return feeds

    def process(self, media: Media, specs: Mapping[str, TensorSpec]) -> Feed:
        """Return a sound as the extractor scales it, at its rate."""
        import numpy as np

        rate = int(getattr(self.extractor, "sampling_rate", RATE))
        wave = resample(media, rate)
        if self.extractor is None:
            return {self.name: standardise([wave])}
        extracted = self.extractor([wave], sampling_rate=rate, return_tensors="np")
        return {self.name: np.asarray(extracted[self.name], np.float32)}


class SpectrogramInput:
    """The input ``input_features``, float32 [batch, mel bins, frames], as Whisper takes them.

    Attributes:
        name: ``input_features``.
        media: Sounds.
        config: The model's configuration.
        extractor: The folder's feature extractor; without one, a plain spectrogram is made.
    """

    name = "input_features"
    media: MediaKind = "sound"

    def __init__(
        self,
        config: transformers.PreTrainedConfig,
        extractor: transformers.FeatureExtractionMixin | None,
    ) -> None:
        self.config = config
        self.extractor = extractor

    def list_specs(self) -> list[TensorSpec]:
        """Return the spec of the features; the encoder's convolutions halve the frames."""
        frames = 2 * getattr(self.config, "max_source_positions", 1500)
        bins = getattr(self.config, "num_mel_bins", 80)
        return [TensorSpec(name=self.name, dtype="float32", shape=("batch", bins, frames))]

    def make_feeds(self, plan: FeedPlan) -> list[Feed]:
        """Return features of three seconds of sound for every feed, in the size of the spec."""
        shape = plan.specs[self.name].shape
        return [
            {self.name: self._draw(rows, shape, plan.seed + index)}
            for index, rows in enumerate(plan.rows)
        ]

    def process(self, media: Media, specs: Mapping[str, TensorSpec]) -> Feed:
        """Return the features of a sound."""
        wave = resample(media, int(getattr(self.extractor, "sampling_rate", RATE)))
        return {self.name: self._extract([wave], specs[self.name].shape)}

    def _draw(self, rows: int, shape: Sequence[int | str], seed: int) -> np.ndarray:
        """Return features of drawn sound."""
        length = RATE * SPECTROGRAM_SECONDS
        waves = [plausible.draw_sound(length, RATE, seed * 17 + row) for row in range(rows)]
        return self._extract(waves, shape)

    def _extract(self, waves: list[np.ndarray], shape: Sequence[int | str]) -> np.ndarray:
        """Return the extractor's features where they have the spec's size, else plain ones."""
        import numpy as np

        if self.extractor is not None:
            extracted = self.extractor(waves, sampling_rate=RATE, return_tensors="np")
            features = np.asarray(extracted["input_features"], np.float32)
            if features.shape[1:] == tuple(shape[1:]):
                return features
        return make_spectrograms(waves, int(shape[1]), int(shape[2]))


def make_spectrograms(waves: Sequence[np.ndarray], bins: int, frames: int) -> np.ndarray:
    """Return log spectra of waveforms, float32 [rows, bins, frames], in Whisper's range: the
    logarithm is cut off 8 below its maximum, then (x + 4) / 4
    (openai/whisper, ``log_mel_spectrogram``)."""
    import numpy as np

    spectra = []
    for wave in waves:
        windows = np.resize(wave, frames * HOP).reshape(frames, HOP)
        spectra.append(np.abs(np.fft.rfft(windows, 2 * bins))[:, :bins].T)
    logarithms = np.log10(np.maximum(np.stack(spectra), 1e-10))
    return ((np.maximum(logarithms, logarithms.max() - 8) + 4) / 4).astype(np.float32)


def standardise(waves: Sequence[np.ndarray]) -> np.ndarray:
    """Return waveforms of equal length, float32 [rows, samples], each with zero mean and unit
    variance, as transformers' Wav2Vec2FeatureExtractor makes them."""
    import numpy as np

    stacked = np.stack(waves)
    centred = stacked - stacked.mean(1, keepdims=True)
    return (centred / np.sqrt(stacked.var(1, keepdims=True) + 1e-7)).astype(np.float32)

"""PyTorch networks after papers, and what people write around them; copied beside models.yml.

Each is a factory that models.yml names. Weights come from files that :mod:`models` writes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


class UNet(nn.Module):
    """U-Net (Ronneberger et al., 2015, arXiv:1505.04597) of two levels; any height and width."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.down_1 = nn.Conv2d(3, channels, 3, padding=1)
        self.down_2 = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.up = nn.Conv2d(3 * channels, channels, 3, padding=1)
        self.head = nn.Conv2d(channels, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        top = F.relu(self.down_1(image))
        low = F.relu(self.middle(F.relu(self.down_2(top))))
        up = F.interpolate(low, size=top.shape[-2:], mode="bilinear", align_corners=False)
        return self.head(F.relu(self.up(torch.cat([top, up], 1))))


class GridDetector(nn.Module):
    """A one-stage detector (YOLOv3, Redmon and Farhadi, 2018, arXiv:1804.02767) of stride 8; boxes
    come in pixels, from the cell's place in a grid of any size."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for ins, outs in ((3, 8), (8, 16), (16, 24)):
            layers += [nn.Conv2d(ins, outs, 3, stride=2, padding=1), nn.LeakyReLU(0.1)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(24, 5 + classes, 1)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        raw = self.head(self.body(image))
        height, width = raw.shape[-2], raw.shape[-1]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        grid = torch.stack([x, y]).to(raw.dtype)
        centre = (raw[:, 0:2].sigmoid() + grid) * 8
        size = raw[:, 2:4].clamp(-4, 4).exp() * 16
        boxes = torch.cat([centre - size / 2, centre + size / 2], 1)
        scores = raw[:, 4:5].sigmoid() * raw[:, 5:].softmax(1)
        return {"boxes": boxes.flatten(2).mT, "scores": scores.flatten(2).mT}


class SqueezeNet(nn.Module):
    """SqueezeNet (Iandola et al., 2016, arXiv:1602.07360), two fire modules, for bytes: pixels come
    as uint8 of [batch, height, width, 3] and are scaled inside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2)
        self.squeeze = nn.Conv2d(16, 8, 1)
        self.expand_1 = nn.Conv2d(8, 16, 1)
        self.expand_3 = nn.Conv2d(8, 16, 3, padding=1)
        self.head = nn.Conv2d(32, 10, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image.permute(0, 3, 1, 2).float() / 127.5 - 1
        x = self.squeeze(F.relu(self.stem(x))).relu()
        x = torch.cat([self.expand_1(x), self.expand_3(x)], 1).relu()
        return self.head(x).mean((2, 3))


class LogPowerSpeech(nn.Module):
    """A transcriber: log power of frames (a DFT as a strided convolution, ε = 1e-10), a GRU,
    letters by frame. Any number of samples."""

    def __init__(self, size: int = 64, hop: int = 32) -> None:
        super().__init__()
        turn = 2 * math.pi * torch.outer(torch.arange(size // 2), torch.arange(size)) / size
        window = torch.hann_window(size)
        waves = torch.cat([turn.cos() * window, turn.sin() * window])[:, None]
        self.register_buffer("waves", waves, persistent=False)
        self.hop, self.size = hop, size
        self.gru = nn.GRU(size // 2, 24, batch_first=True)
        self.head = nn.Linear(24, 12)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        padded = F.pad(waveform[:, None], (self.size // 2, self.size // 2))
        real, imaginary = F.conv1d(padded, self.waves, stride=self.hop).chunk(2, 1)
        power = torch.log(real.square() + imaginary.square() + 1e-10) / 10
        states, _ = self.gru(power.mT)
        return self.head(states)


class LogPowerFrames(LogPowerSpeech):
    """The same transcriber for sound that is cut into frames already, [batch, time, size]."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        real, imaginary = (frames @ self.waves[:, 0].mT).chunk(2, -1)
        power = torch.log(real.square() + imaginary.square() + 1e-10) / 10
        states, _ = self.gru(power)
        return self.head(states)


class Tagger(nn.Module):
    """A tagger of two directions (Huang et al., 2015, arXiv:1508.01991), without a mask."""

    def __init__(self, words: int = 40_000) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, 16)
        self.lstm = nn.LSTM(16, 24, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, 9)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.embed(ids))[0])


class MaskedEncoder(nn.Module):
    """The encoder of Vaswani et al., 2017 (arXiv:1706.03762), one layer, with sinusoids for places
    and a mask of what is text; answers a vector a row, the mean of the rest."""

    def __init__(self, words: int = 500, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.embed, self.heads = nn.Embedding(words, width), heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        places = torch.arange(256)[:, None] * torch.exp(-torch.arange(0, width, 2) / 4)
        self.register_buffer("places", torch.cat([places.sin(), places.cos()], 1), persistent=False)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, length = ids.shape
        x = self.embed(ids) + self.places[:length]
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.qkv(x).chunk(3, -1)
        )
        scores = (q @ k.mT) / (q.shape[-1] ** 0.5)
        scores = scores.masked_fill(mask[:, None, None] == 0, -1e9)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, -1)
        x = self.norm(x + self.out(mixed))
        x = x + self.down(F.gelu(self.up(x)))
        kept = mask[..., None].to(x.dtype)
        return (x * kept).sum(1) / kept.sum(1).clamp(min=1)


class Calendar(nn.Module):
    """Arithmetic of dates: days since 1970, of which those before are negative."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)

    def forward(self, days: torch.Tensor) -> dict[str, torch.Tensor]:
        weekday = (days + 3) % 7
        return {
            "week": torch.div(days, 7, rounding_mode="floor"),
            "weekday": weekday,
            "seconds": days * 86400,
            "features": self.embed(weekday),
        }


class HashedWords(nn.Module):
    """Hash embeddings (Svenstrup et al., 2017, arXiv:1709.03933) of 64-bit ids."""

    def __init__(self, buckets: int = 1021) -> None:
        super().__init__()
        self.buckets = buckets
        self.embed = nn.Embedding(buckets, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(ids % self.buckets).mean(1))


class Price(nn.Module):
    """A regressor of prices around 250, from area, rooms, year and distance as people write
    them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([90.0, 3.5, 1975.0, 8.0]), persistent=False)
        self.register_buffer("deviation", torch.tensor([40.0, 1.5, 30.0, 5.0]), persistent=False)
        self.body = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.head = nn.Linear(32, 1)

    def forward(self, house: torch.Tensor) -> torch.Tensor:
        return self.head(self.body((house - self.mean) / self.deviation)) * 12 + 250


class PointNet(nn.Module):
    """PointNet (Qi et al., 2017, arXiv:1612.00593) without its transforms: any number of points."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(3, 24), nn.ReLU(), nn.Linear(24, 48), nn.ReLU())
        self.head = nn.Linear(48, 8)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return self.head(self.each(points).amax(1))


class WaveStack(nn.Module):
    """WaveNet's gated dilated causal convolutions (van den Oord et al., 2016, arXiv:1609.03499)."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.into = nn.Conv1d(1, width, 1)
        self.filters = nn.ModuleList(nn.Conv1d(width, width, 2, dilation=2**i) for i in range(4))
        self.gates = nn.ModuleList(nn.Conv1d(width, width, 2, dilation=2**i) for i in range(4))
        self.out = nn.Conv1d(width, 6, 1)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        x = self.into(waveform * 4)
        for index, (take, gate) in enumerate(zip(self.filters, self.gates, strict=True)):
            padded = F.pad(x, (2**index, 0))
            x = x + take(padded).tanh() * gate(padded).sigmoid()
        return self.out(x)


class FaceVector(nn.Module):
    """A unit vector a picture (FaceNet, Schroff et al., 2015, arXiv:1503.03832), each picture first
    less its mean and over its deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.PReLU(8), nn.Conv2d(8, 16, 3, stride=2), nn.PReLU(16)
        )
        self.head = nn.Linear(16 * 7 * 7, 32)

    def forward(self, face: torch.Tensor) -> torch.Tensor:
        mean = face.mean((1, 2, 3), keepdim=True)
        variance = (face - mean).square().mean((1, 2, 3), keepdim=True)
        x = self.body((face - mean) / torch.sqrt(variance + 1e-6))
        return F.normalize(self.head(x.flatten(1)))


class Shopper(nn.Module):
    """Entity embeddings beside numbers (Guo and Berkhahn, 2016, arXiv:1604.06737)."""

    def __init__(self) -> None:
        super().__init__()
        self.shop, self.weekday = nn.Embedding(300, 8), nn.Embedding(7, 4)
        self.body = nn.Sequential(nn.Linear(15, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(
        self, shop: torch.Tensor, weekday: torch.Tensor, numbers: torch.Tensor
    ) -> torch.Tensor:
        scaled = torch.sign(numbers) * torch.log1p(numbers.abs())
        joined = torch.cat([self.shop(shop), self.weekday(weekday), scaled], -1)
        return self.body(joined)


class WindowedText(nn.Module):
    """A small language model that looks at its last 32 tokens, as samplers cut their prompts."""

    def __init__(self, words: int = 300, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.places = nn.Embedding(32, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, words)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        ids = ids[:, -32:]
        x = self.embed(ids) + self.places(torch.arange(ids.shape[1]))
        return self.head(self.gru(x)[0][:, -1])


class GraphNet(nn.Module):
    """Graph convolutions (Kipf and Welling, 2017, arXiv:1609.02907) of any number of nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 24), nn.Linear(24, 6)

    def forward(self, nodes: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        joined = edges + torch.eye(edges.shape[0])
        degree = joined.sum(1).clamp(min=1e-6).rsqrt()
        spread = degree[:, None] * joined * degree[None]
        return spread @ self.second(F.relu(spread @ self.first(nodes)))


def unet() -> nn.Module:
    return UNet()


def grid_detector() -> nn.Module:
    return GridDetector()


def squeezenet() -> nn.Module:
    return SqueezeNet()


def log_power_speech() -> nn.Module:
    return LogPowerSpeech()


def log_power_frames() -> nn.Module:
    return LogPowerFrames()


def tagger() -> nn.Module:
    return Tagger()


def masked_encoder() -> nn.Module:
    return MaskedEncoder()


def calendar() -> nn.Module:
    return Calendar()


def hashed_words() -> nn.Module:
    return HashedWords()


def price() -> nn.Module:
    return Price()


def pointnet() -> nn.Module:
    return PointNet()


def wave_stack() -> nn.Module:
    return WaveStack()


def face_vector() -> nn.Module:
    return FaceVector()


def shopper() -> nn.Module:
    return Shopper()


def windowed_text() -> nn.Module:
    return WindowedText()


def graph_net() -> nn.Module:
    return GraphNet()

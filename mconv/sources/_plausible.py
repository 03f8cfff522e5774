"""Plausible inputs for models that come without samples: English sentences, drawn images, synthetic sound. Seeded."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SENTENCES = (
    "The committee will publish its findings on water quality in the northern lakes next spring.",
    "How do I reset the password of my account?",
    "A small dog ran across the muddy field, chasing a red ball.",
    "Interest rates rose by a quarter of a point, the third increase this year.",
    "She opened the window to let in the smell of rain.",
    "The train to Lyon leaves from platform four at 9:15.",
    "Researchers measured how quickly the bacteria adapted to higher temperatures.",
    "I would not recommend this restaurant; the soup was cold and the service slow.",
    "Please send the signed contract back before Friday noon.",
    "The old lighthouse has guided ships past the reef for more than a century.",
    "Python is a programming language that is used for scripting, data analysis and machine learning.",
    "What a wonderful performance!",
    "The patient was given antibiotics and discharged after three days.",
    "Two teenagers were rescued from the mountain after a night in the snow.",
    "To make the dough, mix flour, water, salt and a little yeast, then let it rest.",
    "The court ruled that the company had broken the terms of its licence.",
    "He plays the violin in the city orchestra and teaches on weekends.",
    "Solar panels now provide a fifth of the village's electricity.",
    "Where can I find the nearest pharmacy that is open on Sunday?",
    "The second half of the film drags, but the ending makes up for it.",
    "Engineers closed the bridge to traffic after cracks were found in a pillar.",
    "Our flight was delayed by four hours because of fog.",
    "The museum's new wing shows ceramics from the twelfth century.",
    "Add the vectors, divide by their count, and you have the mean embedding.",
    "Prices of wheat fell sharply after a record harvest.",
    "The keyboard feels solid, but the battery lasts less than a day.",
    "In 1969 people walked on the Moon for the first time.",
    "Children under six travel free when accompanied by an adult.",
    "The volcano had been quiet for almost two hundred years.",
    "Nobody answered the door, so the parcel was left with a neighbour.",
    "Her argument rests on a single assumption, and it is a doubtful one.",
    "The server returned an error because the request was too large.",
)


def sentences(count: int, seed: int) -> list[str]:
    """``count`` sentences in a seeded order; beyond the list's length, pairs of them."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(SENTENCES))
    found = [SENTENCES[i] for i in order]
    while len(found) < count:
        i = len(found)
        found.append(f"{found[i % len(SENTENCES)]} {found[(i * 7 + 3) % len(SENTENCES)]}")
    return found[:count]


def image(height: int, width: int, seed: int) -> np.ndarray:
    """A [height, width, 3] uint8 picture: a colour gradient, a disc, a bar and a little noise."""
    import numpy as np

    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / max(height - 1, 1), x / max(width - 1, 1)
    tilt = rng.uniform(-1, 1, (2, 3))
    picture = 0.5 + 0.35 * (y[..., None] * tilt[0] + x[..., None] * tilt[1])
    cy, cx, radius = rng.uniform(0.25, 0.75), rng.uniform(0.25, 0.75), rng.uniform(0.1, 0.3)
    picture[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = rng.uniform(0, 1, 3)
    bar = rng.uniform(0, 0.8)
    picture[(x > bar) & (x < bar + 0.1)] = rng.uniform(0, 1, 3)
    picture += rng.normal(0, 0.02, picture.shape)
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def sound(samples: int, rate: int, seed: int) -> np.ndarray:
    """[samples] float32 in [-1, 1]: a few gliding tones under a slow envelope, and a little noise."""
    import numpy as np

    rng = np.random.default_rng(seed)
    time = np.arange(samples, dtype=np.float64) / rate
    wave = np.zeros(samples)
    for _ in range(4):
        pitch, glide, phase = rng.uniform(90, 1200), rng.uniform(-40, 40), rng.uniform(0, 6.28)
        wave += rng.uniform(0.2, 1) * np.sin(2 * np.pi * (pitch * time + glide * time**2 / 2) + phase)
    wave *= 0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(1, 5) * time)
    wave += rng.normal(0, 0.01, samples)
    return (wave / np.abs(wave).max()).astype(np.float32)

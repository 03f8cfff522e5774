"""JAX functions and Flax modules; copied beside models.yml, which names their factories."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn


class Mixer(nn.Module):
    """MLP-Mixer (Tolstikhin et al., 2021, arXiv:2105.01601), one block, patches of 4."""

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        x = nn.Conv(16, (4, 4), strides=(4, 4))(image)
        x = x.reshape(x.shape[0], -1, 16)
        y = nn.LayerNorm()(x).swapaxes(1, 2)
        y = nn.Dense(x.shape[1])(nn.gelu(nn.Dense(24)(y)))
        x = x + y.swapaxes(1, 2)
        y = nn.LayerNorm()(x)
        x = x + nn.Dense(16)(nn.gelu(nn.Dense(24)(y)))
        return nn.Dense(7)(x.mean(1))


def mixer() -> tuple[nn.Module, object]:
    """Return the module and seeded variables."""
    module = Mixer()
    return module, module.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))


def log_energy() -> object:
    """Return a function of frames [batch, 40]: log energies, their slope, and weekly buckets of a
    signed integer beside them."""
    weights = jax.random.normal(jax.random.key(1), (40, 6)) / 6

    def call(frames: jax.Array, offset: jax.Array) -> dict[str, jax.Array]:
        energy = jnp.log(frames * frames + 1e-8)
        return {"scores": jnp.tanh(energy @ weights / 8), "bucket": offset // 7, "rest": offset % 7}

    return call

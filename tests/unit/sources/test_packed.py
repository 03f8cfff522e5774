"""Packed sequences, whose layer's last state is all that a model uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mconv.onnx_graph import model_info
from mconv.sources import _packed, _torch
from mconv.values import TensorSpec

INPUTS = (
    TensorSpec(name="x", dtype="float32", shape=("batch", "time", 6)),
    TensorSpec(name="lengths", dtype="int64", shape=("batch",)),
)


class Last(torch.nn.Module):
    """The last state of a recurrent layer over padded rows, or of two, the first of which is padded
    again."""

    def __init__(self, kind: str, stacked: bool) -> None:
        super().__init__()
        torch.manual_seed(2)
        layer = getattr(torch.nn, kind)
        self.before = layer(6, 6, batch_first=True) if stacked else None
        self.layer = layer(6, 5, batch_first=True, bidirectional=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        if self.before is not None:
            padded, _ = pad_packed_sequence(self.before(packed)[0], batch_first=True)
            packed = pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False)
        _, state = self.layer(packed)
        hidden = state[0] if isinstance(state, tuple) else state
        return torch.cat([hidden[0], hidden[1]], 1)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_the_last_state_of_packed_rows(tmp_path: Path, kind: str, stacked: bool) -> None:
    random = np.random.default_rng(4)
    given = [
        {
            "x": random.standard_normal((5, 9, 6)).astype(np.float32),
            "lengths": np.array([9, 2, 5, 9, 1]),
        }
    ]
    module = Last(kind, stacked).eval()
    _torch.export(_torch.TorchModel(module, INPUTS, given=given), tmp_path)
    info = model_info.describe(tmp_path / "model.onnx")
    assert len(info.outputs) == 1
    assert info.outputs[0].shape[1:] == (10,)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for rows, length in ((1, 4), (3, 14)):
        x = random.standard_normal((rows, length, 6)).astype(np.float32)
        lengths = np.minimum(np.arange(rows) * 5 + 4, length)[::-1].copy()
        with torch.inference_mode():
            wanted = module(torch.from_numpy(x), torch.from_numpy(lengths)).numpy()
        (answer,) = session.run(None, {"x": x, "lengths": lengths})
        np.testing.assert_allclose(answer, wanted, atol=1e-5)


def test_hooks_are_gone_after_the_context() -> None:
    module = Last("GRU", False).eval()
    x, lengths = torch.ones(2, 3, 6), torch.tensor([3, 1])
    with _packed.pad_outputs() as padded:
        module(x, lengths)
        assert [tuple(each.shape) for each in padded] == [(2, 3, 10)]
        module(x, lengths)
        assert len(padded) == 1
    module(x, lengths)
    assert len(padded) == 1
    assert not _packed.is_caused_by_packing(RuntimeError("another one"))

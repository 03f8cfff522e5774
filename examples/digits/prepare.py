"""Trains the digits network in seconds and writes weights, labelled samples and calibration data
beside this file.

The data ships with scikit-learn: 1,797 images of 8×8 pixels. Two thirds train, one third is held
out; seeded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from net import build
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = Path(__file__).parent
EPOCHS = 12


def main() -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=1 / 3, random_state=0, stratify=labels
    )
    net = build().train()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    x, y = torch.from_numpy(train_x), torch.from_numpy(train_y)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    net.eval()
    with torch.inference_mode():
        accuracy = (net(torch.from_numpy(test_x)).argmax(1).numpy() == test_y).mean()
    for folder in ("weights", "samples"):
        (HERE / folder).mkdir(exist_ok=True)
    torch.save(net.state_dict(), HERE / "weights" / "digits.pt")
    np.savez(HERE / "samples" / "digits.npz", image=test_x, label=test_y)
    np.savez(HERE / "samples" / "calibration.npz", image=train_x[:256])
    print(f"digits: held-out accuracy {accuracy:.4f} on {len(test_y)} images")


if __name__ == "__main__":
    main()

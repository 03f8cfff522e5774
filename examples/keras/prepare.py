"""Trains a small Keras network on scikit-learn's digits in seconds and writes it, with labelled
samples, beside this file."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = Path(__file__).parent


def main() -> None:
    keras.utils.set_random_seed(0)
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[..., None]
    labels = digits.target.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=1 / 3, random_state=0, stratify=labels
    )
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax", name="scores"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(train_x, train_y, epochs=15, batch_size=64, verbose=0)
    accuracy = (model.predict(test_x, verbose=0).argmax(1) == test_y).mean()
    model.save(HERE / "digits.keras")
    np.savez(HERE / "samples.npz", image=test_x, label=test_y)
    print(f"keras: held-out accuracy {accuracy:.4f} on {len(test_y)} images")


if __name__ == "__main__":
    main()

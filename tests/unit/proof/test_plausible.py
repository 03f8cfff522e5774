"""Sentences, pictures and sounds as people have them, the same every time."""

from __future__ import annotations

import numpy as np

from mconv.proof.plausible import draw_image, draw_sentences, draw_sound


def test_calibration_shares_no_sentence_with_verification() -> None:
    verified = set(draw_sentences(28, 1))
    assert len(verified) == 28
    assert not verified & set(draw_sentences(100, 1, calibration=True))
    assert draw_sentences(5, 3) == draw_sentences(5, 3)
    assert draw_sentences(5, 3) != draw_sentences(5, 4)
    assert len(set(draw_sentences(60, 1))) == 60  # pairs, beyond the list


def test_a_picture_has_shades_of_three_colours() -> None:
    picture = draw_image(40, 56, 7)
    assert (picture.shape, picture.dtype) == ((40, 56, 3), np.uint8)
    assert len(np.unique(picture)) > 50
    assert not np.array_equal(picture[..., 0], picture[..., 1])
    np.testing.assert_array_equal(picture, draw_image(40, 56, 7))
    assert not np.array_equal(picture, draw_image(40, 56, 8))


def test_a_sound_has_tones_below_two_kilohertz() -> None:
    sound = draw_sound(16000, 16000, 5)
    assert sound.dtype == np.float32
    assert np.abs(sound).max() == 1
    power = np.abs(np.fft.rfft(sound)) ** 2  # a bin is a hertz
    assert power[50:2000].sum() > 0.9 * power.sum()
    np.testing.assert_array_equal(sound, draw_sound(16000, 16000, 5))

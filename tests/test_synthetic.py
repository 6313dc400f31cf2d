"""Claims about images that nobody took."""

import numpy as np
import pytest

from hwquant.ir import FloatArray
from hwquant.quantizer import synthetic
from hwquant.quantizer.synthetic import FEWEST, MOST, PIXELS
from hwquant.quantizer.synthetic import images as draw_again

SHAPES = [(3, 32, 32), (1, 28, 28), (3, 96, 80), (40, 1, 49), (1, 98, 1), (16, 1, 1)]


def images(*shape: int) -> FloatArray:
    """Images as drawn before (`conftest.drawn_once`)."""
    return synthetic.images(*shape)


def correlation(one: FloatArray, other: FloatArray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


@pytest.mark.parametrize("shape", SHAPES)
def test_images_are_the_same_at_every_call(shape: tuple[int, int, int]) -> None:
    np.testing.assert_array_equal(draw_again(*shape), images(*shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_images_use_all_of_zero_to_one_and_none_is_there_twice(shape: tuple[int, int, int]) -> None:
    drawn = images(*shape)
    assert drawn.shape[1:] == shape
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    per_channel = np.moveaxis(drawn, 1, 0).reshape(shape[0], -1)
    assert (np.quantile(per_channel, 0.02, axis=1) < 0.2).all()
    assert (np.quantile(per_channel, 0.98, axis=1) > 0.8).all()
    assert len(np.unique(drawn.reshape(len(drawn), -1), axis=0)) == len(drawn)


@pytest.mark.parametrize("shape", SHAPES)
def test_fewer_images_are_drawn_where_they_are_larger(shape: tuple[int, int, int]) -> None:
    pixels = shape[1] * shape[2]
    assert len(images(*shape)) == min(max(PIXELS // pixels, FEWEST), MOST)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
def test_neighbours_are_alike_and_distant_pixels_are_not(shape: tuple[int, int, int]) -> None:
    drawn = images(*shape)
    near = [
        correlation(drawn[..., 1:], drawn[..., :-1]),
        correlation(drawn[:, :, 1:], drawn[:, :, :-1]),
    ]
    far = [
        correlation(drawn[..., 14:], drawn[..., :-14]),
        correlation(drawn[:, :, 14:], drawn[:, :, :-14]),
    ]
    assert min(near) > 0.7
    assert max(far) < 0.5


def test_neighbours_are_alike_in_one_dimension_too() -> None:
    drawn = images(1, 1, 98)
    assert correlation(drawn[..., 1:], drawn[..., :-1]) > 0.6


def test_colours_of_a_pixel_are_alike() -> None:
    drawn = images(3, 32, 32)
    assert correlation(drawn[:, 0], drawn[:, 1]) > 0.6


def test_features_are_independent() -> None:
    drawn = images(16, 1, 1)[:, :, 0, 0]
    others = np.corrcoef(drawn.T) - np.eye(16)
    assert np.abs(others).max() < 0.3  # of 256 draws: five standard deviations

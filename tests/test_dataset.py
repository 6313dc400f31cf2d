"""Data files are read as the sensor's integers, and what does not fit is refused by its key."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hwquant.dataset import load, random_frames
from hwquant.errors import BadInput
from tests.small import data

SHAPE = (3, 6, 5)


def test_channels_last_and_channels_first_are_the_same_images(tmp_path: Path) -> None:
    last = load(data(tmp_path / "last.npz"), SHAPE, 0, 255)
    turned = last.images.astype(np.uint8)
    first = load(data(tmp_path / "first.npz", x=turned, layout="NCHW"), SHAPE, 0, 255)
    np.testing.assert_array_equal(last.images, first.images)
    assert last.images.shape == (6, *SHAPE)
    assert last.images.dtype == np.int64


def test_a_vector_becomes_channels_of_one_pixel_and_needs_no_layout(tmp_path: Path) -> None:
    vectors = np.arange(14, dtype=np.int8).reshape(2, 7)
    file = data(tmp_path / "v.npz", x=vectors, y=None, layout=None)
    loaded = load(file, (7, 1, 1), -128, 127)
    np.testing.assert_array_equal(loaded.images[:, :, 0, 0], vectors)
    assert loaded.labels is None


def test_limit_takes_the_first_images_and_their_labels(tmp_path: Path) -> None:
    file = data(tmp_path / "d.npz")
    whole, part = load(file, SHAPE, 0, 255), load(file, SHAPE, 0, 255, limit=2)
    np.testing.assert_array_equal(part.images, whole.images[:2])
    assert part.labels is not None
    assert part.labels.tolist() == [0, 1]


def first_at(place: tuple[int, ...], value: float) -> npt.NDArray[np.float64]:
    """Sevens up to ``place``, and ``value`` from there on."""
    x = np.full((6, 6, 5, 3), 7.0)
    x.ravel()[np.ravel_multi_index(place, x.shape) :] = value
    return x


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_that_are_integers_are_the_same_images(tmp_path: Path, kind: type) -> None:
    wanted = load(data(tmp_path / "integers.npz"), SHAPE, 0, 255)
    x = wanted.images.transpose(0, 2, 3, 1).astype(kind)
    found = load(data(tmp_path / "floats.npz", x=x), SHAPE, 0, 255)
    np.testing.assert_array_equal(found.images, wanted.images)
    assert found.images.dtype == np.int64


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"x": None}, "has no array 'x'"),
    ({"layout": None}, "has no 'layout'"),
    ({"layout": "HWCN"}, "layout is 'HWCN'; NHWC and NCHW are known"),
    ({"x": np.zeros((6, 6, 5, 3), complex)}, "x is complex128; the network takes the sensor's"),
    ({"x": first_at((1, 2, 0, 1), 0.5)}, "x is float64 and holds 0.5 at [1, 2, 0, 1]; the network"),
    ({"x": first_at((0, 0, 3, 2), np.nan)}, "x is float64 and holds nan at [0, 0, 3, 2]"),
    ({"x": first_at((5, 5, 4, 2), np.inf)}, "x holds 7.0..inf; the sensor's range is 0..255"),
    ({"x": first_at((5, 5, 4, 2), 256.0)}, "x holds 7.0..256.0; the sensor's range is 0..255"),
    ({"x": np.zeros((6, 6, 5, 3), bool)}, "x is bool"),
    ({"x": np.zeros((6, 5, 3), np.uint8)}, "x has shape (6, 5, 3)"),
    ({"x": np.zeros((6, 5, 6, 3), np.uint8)}, "(3, 5, 6); the network takes (3, 6, 5)"),
    ({"x": np.zeros((6, 90), np.uint8)}, "(90, 1, 1); the network takes (3, 6, 5)"),
    ({"x": np.zeros((0, 6, 5, 3), np.uint8), "y": None}, "x holds no image"),
    ({"x": np.full((6, 6, 5, 3), 256)}, "x holds 256..256; the sensor's range is 0..255"),
    ({"x": np.full((6, 6, 5, 3), -1)}, "x holds -1..-1; the sensor's range is 0..255"),
    ({"y": np.zeros(5, int)}, "y has shape (5,); 6 images need (6,)"),
    ({"y": np.zeros(6)}, "y is float64; labels are integers"),
]


@pytest.mark.parametrize(("replaced", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_does_not_fit_is_refused_by_its_key(
    tmp_path: Path, replaced: dict[str, Any], words: str
) -> None:
    file = data(tmp_path / "bad.npz", **replaced)
    with pytest.raises(BadInput) as caught:
        load(file, SHAPE, 0, 255)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    text, array, cut, objects = (tmp_path / name for name in ("a.npz", "b.npz", "c.npz", "d.npz"))
    text.write_text("no archive")
    with array.open("wb") as sink:
        np.save(sink, np.zeros(3))
    cut.write_bytes(data(tmp_path / "whole.npz").read_bytes()[:300])
    np.savez(objects, x=np.array([{}, None], object))
    for file in (text, cut, objects, tmp_path):
        with pytest.raises(BadInput, match="not a readable npz file of arrays"):
            load(file, SHAPE, 0, 255)
    with pytest.raises(BadInput, match="one array, not an npz file"):
        load(array, SHAPE, 0, 255)
    with pytest.raises(BadInput, match="no such file"):
        load(tmp_path / "absent.npz", SHAPE, 0, 255)


def test_random_frames_fill_the_sensors_range_and_follow_the_seed() -> None:
    one, same = (random_frames((2, 8, 8), -8, 7, 4, seed=5) for _ in range(2))
    np.testing.assert_array_equal(one.images, same.images)
    assert (one.images.min(), one.images.max()) == (-8, 7)
    assert not np.array_equal(one.images, random_frames((2, 8, 8), -8, 7, 4, seed=6).images)

"""Test data: an npz file of the sensor's integers and their labels."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwquant.errors import BadInput
from hwquant.ir import IntArray

_LAYOUTS = ("NHWC", "NCHW")
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)

Shape = tuple[int, int, int]  # (C, H, W)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images ``int64[N, C, H, W]`` as the sensor gives them, and their labels ``int64[N]``."""

    name: str
    images: IntArray
    labels: IntArray | None


def load(path: Path, shape: Shape, low: int, high: int, *, limit: int | None = None) -> Dataset:
    """Read ``x``, and ``y`` and ``layout`` where present, for a network whose input is ``shape``.

    ``x`` is ``int[N, H, W, C]``, ``int[N, C, H, W]`` or ``int[N, F]`` with pixels in ``low..high``;
    floats will do if all of them are integers.
    ``limit`` takes the first images only.

    Raises
    ------
    BadInput
        If the file is no npz, or something in it does not fit; names the file and the key.
    """
    arrays = _read(path)
    if "x" not in arrays:
        raise BadInput(f"{path}: has no array 'x' ({_names(arrays)} are there)")
    x = arrays["x"]
    if x.dtype.kind not in "iuf":
        raise BadInput(f"{path}: x is {x.dtype}; the network takes the sensor's integers")
    if x.dtype.kind == "f":
        _require_integers(path, x)
    labels = _labels(path, arrays["y"], len(x)) if "y" in arrays and x.ndim else None
    images = _channels_first(path, x, arrays.get("layout"))[:limit]
    if images.shape[1:] != shape:
        raise BadInput(
            f"{path}: images have (C, H, W) = {images.shape[1:]}; the network takes {shape}"
        )
    if not len(images):
        raise BadInput(f"{path}: x holds no image")
    if images.min() < low or images.max() > high:
        raise BadInput(
            f"{path}: x holds {images.min()}..{images.max()}; the sensor's range is {low}..{high}"
        )
    return Dataset(path.name, images.astype(np.int64), None if labels is None else labels[:limit])


def random_frames(shape: Shape, low: int, high: int, count: int, seed: int) -> Dataset:
    """Draw frames of uniform pixels in ``low..high``."""
    generator = np.random.default_rng(seed)
    images = generator.integers(low, high + 1, (count, *shape), np.int64)
    return Dataset(f"random frames, seed {seed}", images, None)


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise BadInput(f"{path}: one array, not an npz file with 'x' and 'y'")
            return {name: content[name] for name in ("x", "y", "layout") if name in content}
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except _UNREADABLE as error:
        raise BadInput(f"{path}: not a readable npz file of arrays: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _require_integers(path: Path, x: npt.NDArray[Any]) -> None:
    """Refuse floats that are no integers, the first of them by value and place."""
    broken = np.argwhere(x != np.rint(x))
    if len(broken):
        place = tuple(int(index) for index in broken[0])
        raise BadInput(
            f"{path}: x is {x.dtype} and holds {x[place]} at {list(place)}; the network takes the "
            "sensor's integers: of real features v, round(mean + std * v)"
        )


def _names(arrays: dict[str, npt.NDArray[Any]]) -> str:
    return ", ".join(repr(name) for name in arrays) or "none of x, y, layout"


def _labels(path: Path, y: npt.NDArray[Any], count: int) -> IntArray:
    if y.dtype.kind not in "iu":
        raise BadInput(f"{path}: y is {y.dtype}; labels are integers")
    if y.shape != (count,):
        raise BadInput(f"{path}: y has shape {y.shape}; {count} images need ({count},)")
    return y.astype(np.int64)


def _channels_first(
    path: Path, x: npt.NDArray[Any], layout: npt.NDArray[Any] | None
) -> npt.NDArray[Any]:
    if x.ndim == 2:
        return x[:, :, np.newaxis, np.newaxis]
    if x.ndim != 4:
        raise BadInput(f"{path}: x has shape {x.shape}; (N, H, W, C), (N, C, H, W) or (N, F) fit")
    if layout is None:
        raise BadInput(f"{path}: has no 'layout', which says whether x is NHWC or NCHW")
    if str(layout) not in _LAYOUTS:
        raise BadInput(f"{path}: layout is {str(layout)!r}; NHWC and NCHW are known")
    return x if str(layout) == "NCHW" else x.transpose(0, 3, 1, 2)

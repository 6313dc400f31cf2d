"""The network that ships (``scripts/train_fmnist.py`` made it), and 500 images to test it."""

import hashlib
from importlib import resources
from pathlib import Path

import numpy as np

from hwquant.errors import BadInput

_MODEL = "fmnist_resnet.onnx"
_DATA = "fmnist_test.npz"


def model_path() -> Path:
    """Return the path of the network."""
    return _path(_MODEL)


def data_path() -> Path:
    """Return the path of the images."""
    return _path(_DATA)


def normalisation() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return ``mean`` and ``std`` of the network's input."""
    with np.load(data_path()) as arrays:
        mean, std = (np.atleast_1d(arrays[name]).tolist() for name in ("mean", "std"))
    return tuple(mean), tuple(std)


def is_packaged(model_sha256: str) -> bool:
    """Tell whether a network is the one that ships."""
    path = _folder() / _MODEL
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == model_sha256


def _path(name: str) -> Path:
    path = _folder() / name
    if not path.is_file():
        raise BadInput(f"{path}: missing from this installation; name a network of your own")
    return path


def _folder() -> Path:
    return Path(str(resources.files("hwquant") / "data"))

"""A network that is generated in a second, its data, and the command line to do so."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from click.testing import CliRunner, Result

from hwquant.cli import main
from tests.onnx_models import Arrays, save

IMAGE = "float[N, 3, 6, 5]"
BODY = (
    "c = Conv<pads=[1,1,1,1]>(x, w_4_3_3_3, b_4) r = Relu(c) g = GlobalAveragePool(r) "
    "f = Flatten(g) y = Gemm<transB=1>(f, w_3_4, b_3)"
)
SMALL_PLAN = ("--rows", "4", "--cols", "4", "--lanes", "2")


def network(folder: Path, given: Arrays | None = None) -> Path:
    """Write a small convolutional network with three classes."""
    return save(folder, IMAGE, BODY, 2, given=given)


def data(path: Path, **replaced: npt.NDArray[Any] | str | None) -> Path:
    """Write six images for it, some arrays replaced or (``None``) left out."""
    generator = np.random.default_rng(3)
    arrays = {
        "x": generator.integers(0, 256, (6, 6, 5, 3)).astype(np.uint8),
        "y": np.arange(6) % 3,
        "layout": "NHWC",
    }
    arrays |= replaced
    np.savez(path, **{name: a for name, a in arrays.items() if a is not None})
    return path


def hwquant(*arguments: str | Path) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_refused(result: Result, words: str | Sequence[str], code: int = 2) -> None:
    """Assert that one sentence on stderr, with ``words`` in it, is all there is."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert errors == result.stderr.splitlines()[-1:], result.stderr
    for word in [words] if isinstance(words, str) else words:
        assert word in errors[0]


def made_build(folder: Path) -> Path:
    """Generate the small network's build directory."""
    result = hwquant("gen", network(folder), "-o", folder / "build", *SMALL_PLAN)
    assert result.exit_code == 0, result.stderr
    return folder / "build"

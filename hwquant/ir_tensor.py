"""Tensors of integers, and the staircases that make them: what all layers of ``ir`` have in common.

The types of shapes and arrays that all modules share are here too.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hwquant.errors import BadInput

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Pair = tuple[int, int]  # (vertical, horizontal)
Pads = tuple[int, int, int, int]  # (top, left, bottom, right)
Layout = Literal["NCHW", "NHWC", "NCW", "NWC", "NF"]

INPUT = "input"  # the name of the input tensor of every graph
MAX_VALUE_BITS = 24  # of a tensor of values; a layer norm of many channels permits fewer


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of activation codes, or of values, in one frame.

    A code has ``parts`` digits of ``act_bits`` bits, the most significant first in value and in
    the packed code ``digit_0 << act_bits | digit_1``. ``pad_code`` (``int[C]``, packed) is the code
    of real zero, read where a window hangs over the image. A *detailed* code has two digits, else
    `BadInput`: MAC layers read the first, residuals and gates both (``QuantGraph.detail_tables``).

    With ``value_bits`` the elements are no codes but signed values of that many bits, which
    residuals, layer norms, softmaxes and embeddings read; ``parts`` and ``pad_code`` are not read.
    """

    name: str
    channels: int
    height: int
    width: int
    parts: int
    pad_code: IntArray
    is_detailed: bool = False
    value_bits: int = 0

    def __post_init__(self) -> None:
        if self.is_detailed and self.parts != 2:
            raise BadInput(f"{self.name}: detailed codes of parts={self.parts}; permitted 2")
        if self.value_bits and not 2 <= self.value_bits <= MAX_VALUE_BITS:
            raise BadInput(
                f"{self.name}: value_bits={self.value_bits}; permitted 2..{MAX_VALUE_BITS}"
            )

    @property
    def read_parts(self) -> int:
        """Digits that a MAC layer reads."""
        return 1 if self.is_detailed else self.parts

    @property
    def kind(self) -> str:
        """Number and kind of a code's digits, in words."""
        return f"{self.parts} digits" + ", detailed" * self.is_detailed

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.channels, self.height, self.width


@dataclass(frozen=True)
class Thresholds:
    """The staircase ``codes[number of thresholds <= v]``, exact; thresholds strictly increase."""

    thresholds: tuple[int, ...]
    codes: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.codes) != len(self.thresholds) + 1 or not self.thresholds:
            raise BadInput(
                f"Thresholds: {len(self.thresholds)} thresholds need one code more, "
                f"got {len(self.codes)}"
            )
        if any(b <= a for a, b in zip(self.thresholds, self.thresholds[1:], strict=False)):
            raise BadInput("Thresholds: thresholds must strictly increase")


@dataclass(frozen=True)
class PowerTable:
    """Segmented look-up on leading one and mantissa, for ``0 <= v < 2**value_bits``.

    ``v`` saturates to that range first. Below ``2**mantissa_bits`` the table is addressed by ``v``
    itself; above, with ``e = bit_length(v) - 1 - mantissa_bits``, by
    ``(e << mantissa_bits) + (v >> e)``: each octave has ``2**mantissa_bits`` segments.
    """

    value_bits: int
    mantissa_bits: int
    codes: tuple[int, ...]

    def __post_init__(self) -> None:
        want = (self.value_bits - self.mantissa_bits + 1) << self.mantissa_bits
        if not 1 <= self.mantissa_bits < self.value_bits or len(self.codes) != want:
            raise BadInput(
                f"PowerTable: {len(self.codes)} codes for value_bits={self.value_bits}, "
                f"mantissa_bits={self.mantissa_bits}; needs {want}"
            )


Activation = Thresholds | PowerTable


@dataclass(frozen=True)
class Saturate:
    """Makes values, no codes: ``v`` saturated to ``±(2**(bits - 1) - 1)``."""

    bits: int

    @property
    def top(self) -> int:
        """Largest value."""
        return (1 << self.bits - 1) - 1


Staircase = Activation | Saturate

"""Tensors of integers, and the staircases that make them: what all layers of ``ir`` have in common.

The types of shapes and arrays that all modules share are here too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from hwquant.errors import BadInput

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Pair = tuple[int, int]  # (vertical, horizontal)
Pads = tuple[int, int, int, int]  # (top, left, bottom, right)
Layout = Literal["NCHW", "NHWC", "NCW", "NWC", "NF"]

X = TypeVar("X", int, IntArray)

INPUT = "input"  # the name of the input tensor of every graph
MAX_VALUE_BITS = 24  # of a tensor of values; a layer norm of many channels permits fewer
MAX_STAIRCASE_BITS = 20  # of the values that a guess tells apart: a table in golden
MAX_TERMS = 4  # of a polynomial: a cubic
MAX_TERM_BITS = 32  # of a coefficient; products of 34 bits by 20 fit int64
QUOTIENT_SAMPLES_BITS = 8  # of x at which a quotient is bounded
MAX_ROOT = 4  # X = x**3 has 60 bits at most and fits int64
MAX_SLOPE_BITS = 8  # and of what they multiply: a product in LUTs
MAX_ITERATIONS = 4  # enough for int32, says the paper


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
class Window:
    """How a guess becomes a code: a rank among ``steps``, then ``stages`` comparisons.

    The rank begins as ``ranks[guess]`` and, for i = stages - 1 .. 0, grows by ``2**i`` if
    ``steps.thresholds[rank + 2**i - 1] <= v``; the code is ``steps.codes[rank]``. So it is exact
    where every guess leaves at most ``2**stages`` codes possible, all from its rank upwards.
    """

    ranks: tuple[int, ...]
    stages: int
    steps: Thresholds

    def __post_init__(self) -> None:
        count = len(self.steps.codes)
        if not 0 <= self.stages < count.bit_length():
            raise BadInput(
                f"Window: stages={self.stages}; permitted 0..{count.bit_length() - 1} "
                f"of {count} codes"
            )
        top = count - (1 << self.stages)
        if not self.ranks or min(self.ranks) < 0 or max(self.ranks) > top:
            raise BadInput(f"Window: ranks {self.ranks}; permitted one or more, in 0..{top}")


@dataclass(frozen=True)
class _Guess:
    """A guess of u, which is ``v - low`` saturated to ``0..2**value_bits - 1``, and its window."""

    low: int
    value_bits: int
    window: Window

    @property
    def codes(self) -> tuple[int, ...]:
        """Codes that come out, and perhaps more."""
        return self.window.steps.codes

    def _check(self, guesses: int) -> None:
        name, ranks = type(self).__name__, len(self.window.ranks)
        if not 1 <= self.value_bits <= MAX_STAIRCASE_BITS:
            raise BadInput(
                f"{name}: value_bits={self.value_bits}; permitted 1..{MAX_STAIRCASE_BITS}"
            )
        if ranks != guesses:
            raise BadInput(f"{name}: {ranks} ranks; permitted {guesses}, one a guess")
        ends = (self.window.steps.thresholds[0], self.window.steps.thresholds[-1])
        high = self.low + (1 << self.value_bits) - 1
        if not self.low < ends[0] or ends[1] > high:
            raise BadInput(f"{name}: thresholds in {ends}; permitted {self.low + 1}..{high}")


@dataclass(frozen=True)
class Slopes:
    """How the rank at which a window begins rises in segment g: by ``values[g] * x >> shift``.

    x is how much of the segment lies below u, a fraction of ``offset_bits`` bits, rounded down.
    ``bits`` hold every value.
    """

    values: tuple[int, ...]
    bits: int
    offset_bits: int
    shift: int

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("bits", self.bits, 1, MAX_SLOPE_BITS),
            ("offset_bits", self.offset_bits, 1, MAX_SLOPE_BITS),
            ("shift", self.shift, 0, 2 * MAX_SLOPE_BITS),
        ):
            if not low <= value <= high:
                raise BadInput(f"Slopes: {name}={value}; permitted {low}..{high}")
        top = (1 << self.bits) - 1
        if any(not 0 <= value <= top for value in self.values):
            raise BadInput(f"Slopes: values={self.values}; permitted 0..{top}")

    def largest_rise(self, guess: int, shift: int) -> int:
        """Return the rise at the end of segment ``guess``, which has ``2**shift`` values."""
        x = (1 << self.offset_bits) - (1 << max(self.offset_bits - shift, 0))
        return self.values[guess] * x >> self.shift


@dataclass(frozen=True)
class PowerTable(_Guess):
    """The guess is the number of a segment.

    With r the first range for which ``u < 2**(index_bits + shifts[r])``, the segment is
    ``r << index_bits | u >> shifts[r]``: a range has ``2**index_bits`` segments, all of one length.
    With ``slopes`` the rank at which the window begins rises within a segment.
    """

    index_bits: int
    shifts: tuple[int, ...]
    slopes: Slopes | None = None

    def __post_init__(self) -> None:
        widest = self.value_bits - self.index_bits
        rises = all(b > a for a, b in zip(self.shifts, self.shifts[1:], strict=False))
        if not 0 <= self.index_bits <= self.value_bits:
            raise BadInput(
                f"PowerTable: index_bits={self.index_bits}; permitted 0..{self.value_bits}"
            )
        if not rises or not self.shifts or self.shifts[0] < 0 or self.shifts[-1] != widest:
            raise BadInput(
                f"PowerTable: shifts={self.shifts}; permitted 0..{widest}, "
                f"increasing, {widest} the last"
            )
        self._check(len(self.shifts) << self.index_bits)
        if self.slopes is not None:
            self._check_slopes(self.slopes)

    def _check_slopes(self, slopes: Slopes) -> None:
        ranks = self.window.ranks
        if len(slopes.values) != len(ranks):
            raise BadInput(
                f"PowerTable: {len(slopes.values)} slopes; permitted {len(ranks)}, one a guess"
            )
        top = len(self.codes) - (1 << self.window.stages)
        for guess, rank in enumerate(ranks):
            last = rank + slopes.largest_rise(guess, self.shifts[guess >> self.index_bits])
            if last > top:
                raise BadInput(
                    f"PowerTable: ranks of segment {guess} rise to {last}; permitted 0..{top}"
                )


def horner(terms: Sequence[int], x: X, x_bits: int) -> X:
    """Evaluate a polynomial of a `PowerPade`, for one x or an array of them."""
    total = x * 0 + terms[-1]
    for term in terms[-2::-1]:
        total = (total * x >> x_bits) + term
    return total


def quotient_bits(numerator: Sequence[int], denominator: Sequence[int], x_bits: int) -> int:
    """Bits that hold the quotient of two polynomials at every x.

    Both rise: between two x it is at most the numerator at the right one, by the denominator at the
    left one.
    """
    step = max(1, 1 << x_bits >> QUOTIENT_SAMPLES_BITS)
    return max(
        horner(numerator, x + step - 1, x_bits) // horner(denominator, x, x_bits)
        for x in range(0, 1 << x_bits, step)
    ).bit_length()


@dataclass(frozen=True)
class PowerPade(_Guess):
    """The guess is a quotient of two polynomials in ``x = u >> drop``.

    Both are evaluated by Horner's scheme from the last coefficient, the highest, to the first:
    ``acc = (acc * x >> value_bits - drop) + coefficient``. No coefficient is negative, so no sum
    exceeds that of the coefficients. The guess is the quotient rounded down, or the last where that
    is more than the guesses that there are; ``quotient_bits`` hold every quotient.

    Source
    ------
    PowerQuant, appendix K; Hajduk 2017. Differs: least error over the steps of a staircase, where
    Padé's has the most derivatives at one point.
    """

    drop: int
    numerator: tuple[int, ...]
    denominator: tuple[int, ...]
    quotient_bits: int

    def __post_init__(self) -> None:
        for name, terms in (("numerator", self.numerator), ("denominator", self.denominator)):
            is_small = all(0 <= term < 1 << MAX_TERM_BITS for term in terms)
            if not 2 <= len(terms) <= MAX_TERMS or not is_small:
                raise BadInput(
                    f"PowerPade: {name}={terms}; permitted 2..{MAX_TERMS} coefficients "
                    f"in 0..2**{MAX_TERM_BITS} - 1"
                )
        if self.denominator[0] < 1:
            raise BadInput("PowerPade: denominator begins with 0; permitted 1 and up")
        _check_drop(self, self.drop)
        self._check(1 << self.guess_bits)
        least = max(quotient_bits(self.numerator, self.denominator, self.x_bits), self.guess_bits)
        if self.quotient_bits < least:
            raise BadInput(
                f"PowerPade: quotient_bits={self.quotient_bits}; permitted {least} and up"
            )

    @property
    def x_bits(self) -> int:
        """Bits of x."""
        return self.value_bits - self.drop

    @property
    def guess_bits(self) -> int:
        """Bits of the guess."""
        return (len(self.window.ranks) - 1).bit_length()


@dataclass(frozen=True)
class PowerNewton(_Guess):
    """The guess is the root of ``X = x**power`` with ``x = u >> drop | 1``, by Newton's iteration.

    It begins at ``y = 2**k``, k = ``bit_length(X) / root`` rounded up, so not below the root; and
    ``iterations`` times ``y = ((root - 1) * y + X // y**(root - 1)) // root``. The last guess
    serves where y is more.

    Source
    ------
    PowerQuant, section 3.3; Kim et al. 2021 (I-BERT), algorithm 4 for ``root`` 2.
    """

    drop: int
    power: int
    root: int
    iterations: int

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("root", self.root, 2, MAX_ROOT),
            ("power", self.power, 1, self.root - 1),
            ("iterations", self.iterations, 1, MAX_ITERATIONS),
        ):
            if not low <= value <= high:
                raise BadInput(f"PowerNewton: {name}={value}; permitted {low}..{high}")
        _check_drop(self, self.drop)
        self._check(1 << self.guess_bits)

    @property
    def x_bits(self) -> int:
        """Bits of x."""
        return self.value_bits - self.drop

    @property
    def guess_bits(self) -> int:
        """The largest k; y is ``2**k`` at most."""
        return -(-self.x_bits * self.power // self.root)


def _check_drop(record: PowerPade | PowerNewton, drop: int) -> None:
    if not 0 <= drop < record.value_bits:
        name = type(record).__name__
        raise BadInput(f"{name}: drop={drop}; permitted 0..{record.value_bits - 1}")


Guess = PowerTable | PowerPade | PowerNewton
Activation = Thresholds | Guess


@dataclass(frozen=True)
class Saturate:
    """Makes values, no codes: ``v`` saturated to ``±(2**(bits - 1) - 1)``."""

    bits: int

    @property
    def top(self) -> int:
        """Largest value."""
        return (1 << self.bits - 1) - 1


Staircase = Activation | Saturate

"""Code grids: which level each code stands for, and which code each value gets.

A *grid* is the levels of one digit in 0..1. A *codebook* is the sorted list of all levels that the
codes of a tensor or a kernel reach, with one digit or several. Everything here is float; what
leaves are tables of integers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import Literal

import numpy as np

from hwquant.ir import FloatArray, IntArray, LevelTables, ProductTable

Method = Literal["power", "uniform", "log"]

LEVEL_BITS = 12  # of a decoded skip level at most, so that a gate times an accumulator fits
GUARD_BITS = 6  # of a decoded skip level, beyond its code's: 0.5 / 2**6 of the finest uniform step
WEIGHT_GUARD_BITS = 4  # of a decoded weight level, beyond its magnitude's
ACT_GUARD_BITS = 4  # of a decoded activation level; 12 x 12 bits still fit one 18 x 18 multiplier
TIE = 1e-9  # two pairs of digits closer than this have one value
SAMPLES = 4096  # of the uniform distribution on which `choose_part_shift` compares shifts


@dataclass(frozen=True)
class Grid:
    """The digits ``0..top`` of one method; level 0 is 0 and level ``top`` is 1.

    With a ``full_scale`` the levels of a power grid are whole numbers, of which that is the
    largest: products of two grids need no rounding then.

    Source
    ------
    PowerQuant (Yvinec et al., ICLR 2023), eq. 2 (rounding in the power domain) and eq. 4 (levels);
    ``log`` is Miyashita et al. 2016 with base 2, rounded in the log domain. Whole levels are not in
    the paper.
    """

    method: Method
    exponent: float
    top: int
    full_scale: int = 0

    def __post_init__(self) -> None:
        if self.method == "uniform" and self.full_scale == 0:
            object.__setattr__(self, "full_scale", self.top)

    @cached_property
    def whole(self) -> IntArray:
        """Whole levels, ``int[top + 1]``: those nearest the curve that all differ.

        So they rise by 1 where the curve rises by less.
        """
        every = np.arange(self.top + 1, dtype=np.int64)
        near = _round(self._curve(every.astype(np.float64)) * self.full_scale)
        return np.maximum.accumulate(near - every) + every

    @cached_property
    def levels(self) -> FloatArray:
        """Level of every digit, ``float[top + 1]`` in 0..1, strictly increasing."""
        if self.full_scale:
            return self.whole / self.full_scale
        return self._curve(np.arange(self.top + 1, dtype=np.float64))

    @cached_property
    def edges(self) -> FloatArray:
        """Smallest value of digits ``1..top``.

        Where rounding in the code's domain steps up; midway between whole levels.
        """
        if self.full_scale:
            return (self.whole[1:] + self.whole[:-1]) / (2 * self.full_scale)
        return self._curve(np.arange(1, self.top + 1, dtype=np.float64) - 0.5)

    def _curve(self, digits: FloatArray) -> FloatArray:
        """Levels of digits, and of what lies between them."""
        match self.method:
            case "power":
                return (digits / self.top) ** (1 / self.exponent)
            case "uniform":
                return digits / self.top
            case "log":
                return np.where(digits > 0, 2.0 ** (digits - self.top), 0.0)

    def is_gapless(self, shift: int, is_signed: bool) -> bool:
        """Whether codes of two digits, the first weighed by ``2**shift``, leave no gaps.

        So that the second digit reaches from each level of the first to the next.
        """
        reach = self.full_scale * (2 if is_signed else 1)
        return int(np.diff(self.whole).max()) << shift <= reach + 1

    def encode(self, values: FloatArray) -> IntArray:
        """Digit of each value; below 0 saturates to 0 and above 1 to ``top``.

        Error
        -----
        At most half a digit in the power domain: ``|q - top * x**a| <= 1/2`` for x in 0..1.
        """
        return np.searchsorted(self.edges, values, side="right").astype(np.int64)


@dataclass(frozen=True, eq=False)
class Codebook:
    """All codes of one operand in the order of their values.

    ``values`` (``float[n]``) strictly increase; ``digits`` (``int[n, parts]``) spell each code,
    the most significant first; ``edges`` (``float[n - 1]``) are the smallest values of all codes
    but the first. A MAC layer reads ``read_values``: of a detailed code its first digit alone.
    Where ``is_value`` the book is of values, whose only digit is the value itself, signed.
    """

    values: FloatArray
    digits: IntArray
    edges: FloatArray
    read_values: FloatArray
    is_detailed: bool = False
    is_value: bool = False

    @property
    def parts(self) -> int:
        """Number of digits of a code."""
        return self.digits.shape[1]

    @property
    def read_parts(self) -> int:
        """Number of digits that a MAC layer reads."""
        return 1 if self.is_detailed else self.parts

    def rank(self, values: FloatArray) -> IntArray:
        """Position in the codebook of each value's code (saturating)."""
        return np.searchsorted(self.edges, values, side="right").astype(np.int64)

    def packed(self, bits: int) -> IntArray:
        """Packed code of every rank: digits of ``bits`` bits, the first on top."""
        parts = self.parts
        return (self.digits << (bits * np.arange(parts - 1, -1, -1))).sum(1)

    def digit_mass(self, mass: FloatArray, top: int) -> FloatArray:
        """Probability of every digit that a MAC layer reads from that of every code.

        ``float[C, n] -> float[parts read, C, top + 1]``.
        """
        digits = self.digits[:, : self.read_parts]
        return np.einsum("cn,npq->pcq", mass, np.eye(top + 1)[digits])


def value_codebook(bits: int) -> Codebook:
    """Values from -1 to 1 in steps of ``1 / top``, rounded half up."""
    top = (1 << bits - 1) - 1
    values = np.arange(-top, top + 1, dtype=np.int64)
    levels = values / top
    return Codebook(levels, values[:, None], _midpoints(levels), levels, is_value=True)


def digit_weights(parts: int, part_shift: int) -> IntArray:
    """Weight of each digit of a code, ``2**(part_shift * (parts - 1 - j))``."""
    return 1 << (part_shift * np.arange(parts - 1, -1, -1, dtype=np.int64))


def activation_codebook(grid: Grid, parts: int, part_shift: int) -> Codebook:
    """Codes of a tensor with one digit or two.

    Of two digits only those pairs are valid that stay below the next first digit, so that packed
    codes compare like their values; edges are the midpoints between valid levels.
    """
    if parts == 1:
        return Codebook(grid.levels, np.arange(grid.top + 1)[:, None], grid.edges, grid.levels)
    levels, step = grid.levels, 2.0**part_shift
    value = levels[:, None] * step + levels
    ceiling = np.append(levels[1:] * step, np.inf)
    valid = value < ceiling[:, None] - TIE
    values = value[valid] / (step + 1)
    return Codebook(values, np.argwhere(valid).astype(np.int64), _midpoints(values), values)


def activation_codebooks(grid: Grid, parts: int, part_shift: int) -> dict[str, Codebook]:
    """Codebooks of every kind of codes; of one digit, where ``parts`` is 1."""
    plain = activation_codebook(grid, 1, part_shift)
    if parts == 1:
        return {"plain": plain, "wide": plain, "detailed": plain}
    wide = activation_codebook(grid, parts, part_shift)
    return {"plain": plain, "wide": wide, "detailed": detail_codebook(grid)}


def detail_tables(grid: Grid) -> IntArray:
    """Levels of a detailed code's two digits, to be added: ``int[2, top + 1]``.

    The first are the grid's levels, the second steps about them, from ``-(top + 1) / 2`` of them
    upwards, so wide that they reach half the grid's widest gap.
    """
    levels = _round(grid.levels * (2 ** _level_bits(grid) - 1))
    half = (grid.top + 1) // 2
    reach = max(half - 1, 1)
    step = -(-int(np.diff(levels).max()) // (2 * reach))
    return np.stack([levels, (np.arange(grid.top + 1) - half) * step])


def detail_codebook(grid: Grid) -> Codebook:
    """Codes of a tensor whose first digit is the code itself and whose second refines it.

    MAC layers read the first digit, residual operands both. The first digit changes at the grid's
    own edges, the second midway between its levels.
    """
    first, second = detail_tables(grid)
    own = (grid.top + 1) // 2  # the second digit that adds nothing
    cells = np.concatenate([[0.0], grid.edges, [np.inf]])
    digits, values, edges = list[tuple[int, int]](), list[float](), list[float]()
    for digit, (low, high) in enumerate(pairwise(cells)):
        levels = grid.levels[digit] + second / first[-1]
        is_inside = (levels >= low) & (levels < high)
        is_inside[own] = True
        inside = np.flatnonzero(is_inside)
        digits += [(digit, int(detail)) for detail in inside]
        values += list(levels[inside])
        edges += [low, *_midpoints(levels[inside])]
    spelled = np.array(digits, dtype=np.int64)
    read = grid.levels[spelled[:, 0]]
    return Codebook(np.array(values), spelled, np.array(edges[1:]), read, is_detailed=True)


def weight_codebook(grid: Grid, parts: int, part_shift: int) -> Codebook:
    """Signed codes of a kernel: every combination of ``parts`` digits, the nearest one wins.

    With one digit the edges are those of eq. 2. Of combinations with one value the one with the
    smallest last digit is kept, and of those the one with the smallest digits.
    """
    top = grid.top
    if parts == 1:
        edges = np.concatenate([-grid.edges[::-1], grid.edges])
        values = np.concatenate([-grid.levels[:0:-1], grid.levels])
        return Codebook(values, np.arange(-top, top + 1)[:, None], edges, values)
    digits = np.array(list(product(range(-top, top + 1), repeat=parts)), dtype=np.int64)
    weights = digit_weights(parts, part_shift)
    levels: FloatArray = np.sign(digits) * grid.levels[np.abs(digits)]
    values = np.asarray(np.round(levels @ weights / weights.sum(), 12), dtype=np.float64)
    sizes = np.abs(digits)
    order = np.lexsort((*digits.T, sizes.sum(1), sizes[:, -1], values))
    values, first = np.unique(values[order], return_index=True)
    return Codebook(values, digits[order][first], _midpoints(values), values)


def weight_codebooks(grid: Grid, counts: Iterable[int], part_shift: int) -> dict[int, Codebook]:
    """Codebooks of weights by the number of their digits."""
    return {parts: weight_codebook(grid, parts, part_shift) for parts in counts}


def choose_part_shift(weights: Grid, acts: Grid, weight_parts: int, act_parts: int) -> int:
    """Weight of one digit over the next, as a power of two; 0 if no code has several digits.

    The shift with the smallest squared error on uniformly distributed weights and activations.
    """
    if max(weight_parts, act_parts) == 1:
        return 0
    samples = np.linspace(0.0, 1.0, SAMPLES)

    def error(shift: int) -> float:
        total = 0.0
        if act_parts > 1:
            total += _mean_square_error(activation_codebook(acts, act_parts, shift), samples)
        if weight_parts > 1:
            book = weight_codebook(weights, weight_parts, shift)
            total += _mean_square_error(book, samples)
        return total

    top_shift = max(weights.top, acts.top).bit_length() + 1
    return min(range(1, top_shift + 1), key=error)


def product_table(weights: Grid, acts: Grid, bits: int) -> ProductTable:
    """Products of two digits in ``bits`` bits; exact integers if all levels are whole.

    Source
    ------
    PowerQuant, appendix F: the power ``1/a`` is applied to every product before the sum.
    """
    if weights.full_scale and acts.full_scale:
        return ProductTable(np.outer(weights.whole, acts.whole))
    return ProductTable(_round(np.outer(weights.levels, acts.levels) * (2**bits - 1)))


def level_tables(weights: Grid, acts: Grid) -> LevelTables:
    """Levels of either operand's digits as integers; whole levels themselves."""
    return LevelTables(
        _integer_levels(weights, weights.top.bit_length() + WEIGHT_GUARD_BITS),
        _integer_levels(acts, acts.top.bit_length() + ACT_GUARD_BITS),
    )


def skip_levels(acts: Grid) -> IntArray:
    """Levels of a residual operand's digits as integers; whole levels themselves."""
    return _integer_levels(acts, _level_bits(acts))


def _level_bits(grid: Grid) -> int:
    return min(grid.top.bit_length() + GUARD_BITS, LEVEL_BITS)


def _integer_levels(grid: Grid, bits: int) -> IntArray:
    if grid.full_scale:
        return grid.whole
    return _round(grid.levels * (2**bits - 1))


def _round(values: FloatArray) -> IntArray:
    return np.round(values).astype(np.int64)


def _midpoints(values: FloatArray) -> FloatArray:
    return (values[1:] + values[:-1]) / 2


def _mean_square_error(book: Codebook, samples: FloatArray) -> float:
    return float(np.mean((book.values[book.rank(samples)] - samples) ** 2))

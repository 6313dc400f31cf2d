"""What follows a guess: ranks to begin from, and how many comparisons they leave."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwquant.ir import IntArray, Thresholds, Window


@dataclass(frozen=True)
class Domain:
    """The values that matter to an oracle: u = ``v - low`` in ``0..2**value_bits - 1``."""

    oracle: Thresholds
    low: int
    value_bits: int

    @cached_property
    def u(self) -> IntArray:
        """Every u."""
        return np.arange(1 << self.value_bits)

    @cached_property
    def steps(self) -> IntArray:
        """Where the oracle steps, ``int[thresholds]`` in u."""
        return np.array(self.oracle.thresholds) - self.low

    @cached_property
    def ranks(self) -> IntArray:
        """Rank of every u's code in the oracle."""
        return np.searchsorted(self.steps, self.u, side="right").astype(np.int64)


def domains(oracles: Sequence[Thresholds]) -> list[Domain]:
    """Return the domains of oracles that share a unit: equally many bits, lows of their own.

    ``low`` is 0 where all steps are above 0, as after ReLU, so that no subtraction is left.
    """
    lows = [0 if o.thresholds[0] > 0 else o.thresholds[0] - 1 for o in oracles]
    tops = [o.thresholds[-1] - low for o, low in zip(oracles, lows, strict=True)]
    bits = max(tops).bit_length()
    return [Domain(o, low, bits) for o, low in zip(oracles, lows, strict=True)]


@dataclass(frozen=True)
class Spread:
    """Lowest and highest rank of the u with one guess, ``int[guesses]`` each."""

    low: IntArray
    high: IntArray

    def stages(self, max_code_error: int) -> int:
        """Comparisons that bring the code within ``max_code_error`` steps of the oracle's."""
        rest = int((self.high - self.low).max()) - 2 * max_code_error
        return max(rest, 0).bit_length()


def spread(domain: Domain, guesses: IntArray, count: int) -> Spread:
    """Return what each of ``count`` guesses leaves possible; ``guesses`` are those of every u.

    A guess that no u has gets the ranks of the one below it.
    """
    low, high = np.full(count, len(domain.oracle.codes)), np.full(count, -1)
    np.minimum.at(low, guesses, domain.ranks)
    np.maximum.at(high, guesses, domain.ranks)
    nearest = np.maximum.accumulate(np.where(high < 0, 0, np.arange(count)))
    low, high = low[nearest], high[nearest]
    unknown = high < 0  # below the lowest guess
    return Spread(np.where(unknown, 0, low), np.where(unknown, 0, high))


def window(domain: Domain, ranks: Spread, stages: int) -> Window:
    """Begin where the comparisons reach all that a guess leaves, or its middle."""
    reach = (1 << stages) - 1
    beyond = np.maximum(ranks.high - ranks.low - reach, 0)
    begin = np.minimum(ranks.low + beyond // 2, len(domain.steps) - reach)
    return Window(tuple(int(rank) for rank in begin), stages, domain.oracle)

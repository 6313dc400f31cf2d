"""What follows a guess: ranks to begin from, and how many comparisons they leave."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwquant.ir import IntArray, Thresholds, Window


@dataclass(frozen=True)
class Domain:
    """The values that matter to an oracle: u = ``v - low`` in ``0..2**value_bits - 1``.

    ``places`` are those of the oracle's codes among all codes there are, in the order of values. A
    code that is at most ``max_code_error`` places away may stand in for another.
    """

    oracle: Thresholds
    low: int
    value_bits: int
    places: IntArray
    max_code_error: int

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

    @cached_property
    def served(self) -> tuple[IntArray, IntArray]:
        """First and last of the ranks, one after the other, that each rank may stand in for."""
        rank = np.arange(len(self.places))
        far = np.abs(self.places[:, None] - self.places) > self.max_code_error
        before, after = rank < rank[:, None], rank > rank[:, None]
        first = np.where(far & before, rank + 1, 0).max(axis=1)
        return first, np.where(far & after, rank - 1, len(rank) - 1).min(axis=1)

    def farthest(self, stages: int) -> IntArray:
        """Highest rank that one window serves together with each rank, or -1.

        Comparisons from rank k end in k, in k + 2**stages - 1, or exactly.
        """
        first, last = self.served
        reach = (1 << stages) - 1
        found = np.full(len(first), -1)
        np.maximum.at(found, first[: len(first) - reach], last[reach:])
        return np.maximum.accumulate(found)


def domains(
    oracles: Sequence[Thresholds], max_code_error: int, orders: Sequence[IntArray]
) -> list[Domain]:
    """Return the domains of oracles that share a unit: equally many bits, lows of their own.

    ``orders`` are all codes there are for each oracle, rising. ``low`` is 0 where all steps are
    above 0, as after ReLU, so that no subtraction is left.
    """
    lows = [0 if o.thresholds[0] > 0 else o.thresholds[0] - 1 for o in oracles]
    tops = [o.thresholds[-1] - low for o, low in zip(oracles, lows, strict=True)]
    bits = max(tops).bit_length()
    return [
        Domain(oracle, low, bits, np.searchsorted(order, oracle.codes), max_code_error)
        for oracle, low, order in zip(oracles, lows, orders, strict=True)
    ]


@dataclass(frozen=True)
class Spread:
    """Lowest and highest rank of the u with one guess, ``int[guesses]`` each."""

    domain: Domain
    low: IntArray
    high: IntArray

    def is_served(self, stages: int) -> bool:
        """Whether so many comparisons bring every code near enough to the oracle's."""
        if 1 << stages > len(self.domain.oracle.codes):
            return False
        return bool((self.high <= self.domain.farthest(stages)[self.low]).all())

    def window(self, stages: int) -> Window:
        """Begin where the comparisons reach all that a guess leaves, or else its middle."""
        first, last = self.domain.served
        reach = (1 << stages) - 1
        begin = np.arange(len(first) - reach)
        beyond = np.maximum(self.high - self.low - reach, 0)
        wanted = np.minimum(self.low + beyond // 2, begin[-1])[:, None]
        serves = (first[begin] <= self.low[:, None]) & (last[reach:] >= self.high[:, None])
        nearest = np.where(serves, np.abs(begin - wanted), len(first)).argmin(axis=1)
        return Window(tuple(int(rank) for rank in nearest), stages, self.domain.oracle)


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
    return Spread(domain, np.where(unknown, 0, low), np.where(unknown, 0, high))


def windows(spreads: Sequence[Spread], most: int) -> list[Window] | None:
    """Build the windows of a shared unit, of ``most`` comparisons at most, or ``None``."""
    for stages in range(most + 1):
        if all(found.is_served(stages) for found in spreads):
            return [found.window(stages) for found in spreads]
    return None

"""Roots by Newton's iteration, for any staircase: comparisons make up for what is no root."""

from collections.abc import Iterator, Sequence

import numpy as np

from hwquant.activation.cost import cost
from hwquant.activation.window import Domain, spread, windows
from hwquant.ir import IntArray, PowerNewton

ITERATIONS = 2  # the paper's for few bits
POWERS = ((1, 2), (1, 3), (2, 3), (1, 4), (3, 4))  # power and root
MAX_STAGES = 8  # of SiLU with 8 bits and exponent 0.25, whose codes fall steeply before they rise
MIN_GUESSES = 8


def fit_newton(given: Sequence[Domain]) -> list[PowerNewton] | None:
    """Build the roots of least cost that share a unit, or ``None`` where none is near enough.

    The root is that of u, the distance to the staircase's first step or, after ReLU, to zero.
    """
    best: list[PowerNewton] | None = None
    for power, root, drop in _shapes(given[0].value_bits):
        roots, count = _roots(given[0].value_bits - drop, power, root)
        spreads = [spread(domain, roots[domain.u >> drop], count) for domain in given]
        found = windows(spreads, MAX_STAGES)
        if found is None:
            continue
        made = [
            PowerNewton(d.low, d.value_bits, window, drop, power, root, ITERATIONS)
            for d, window in zip(given, found, strict=True)
        ]
        if best is None or sum(map(cost, made)) < sum(map(cost, best)):
            best = made
    return best


def _shapes(bits: int) -> Iterator[tuple[int, int, int]]:
    for power, root in POWERS:
        for drop in range(bits - 1):
            if -(-(bits - drop) * power // root) >= MIN_GUESSES.bit_length() - 1:
                yield power, root, drop


def _roots(x_bits: int, power: int, root: int) -> tuple[IntArray, int]:
    """Return the guess of every x, and how many guesses there are."""
    given = (np.arange(1 << x_bits) | 1) ** power
    # frexp takes doubles, which round beyond 2**53: compare with the powers themselves
    lengths = np.searchsorted(2 ** np.arange(62), given, side="right")
    y = 2 ** ((lengths + root - 1) // root)
    for _ in range(ITERATIONS):
        quotient = given // y ** (root - 1)
        y = (y * (root - 1) + quotient) // root
    count = 1 << -(-x_bits * power // root)
    return np.minimum(y, count - 1), count

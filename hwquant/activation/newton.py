"""Roots by Newton's iteration, for staircases that are powers."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from hwquant.activation.cost import cost
from hwquant.activation.window import Domain, domains, spread, window
from hwquant.ir import IntArray, PowerNewton, Thresholds

ITERATIONS = 2  # the paper's for few bits
POWERS = ((1, 2), (1, 3), (2, 3), (1, 4), (3, 4))  # power and root
MAX_STAGES = 3
MIN_GUESSES = 8


def fit_newton(oracles: Sequence[Thresholds], max_code_error: int) -> list[PowerNewton] | None:
    """Build the roots of least cost that share a unit, or ``None`` where none is a power's.

    A staircase is taken for a power's if it only rises, above v = 0, and at most ``MAX_STAGES``
    comparisons make up for the difference to the root.

    Error
    -----
    At most ``max_code_error`` steps of the staircase, for every integer v.
    """
    for oracle in oracles:
        rises = all(b > a for a, b in pairwise(oracle.codes))
        if not rises or oracle.thresholds[0] <= 0:
            return None
    given = domains(oracles)
    best: list[PowerNewton] | None = None
    for power, root, drop in _shapes(given[0].value_bits):
        guesses, count = _roots(given[0], power, root, drop)
        spreads = [spread(domain, guesses, count) for domain in given]
        stages = max(found.stages(max_code_error) for found in spreads)
        if stages > MAX_STAGES or any(1 << stages > len(o.codes) for o in oracles):
            continue
        made = [
            PowerNewton(d.low, d.value_bits, window(d, s, stages), drop, power, root, ITERATIONS)
            for d, s in zip(given, spreads, strict=True)
        ]
        if best is None or sum(map(cost, made)) < sum(map(cost, best)):
            best = made
    return best


def _shapes(bits: int) -> Iterator[tuple[int, int, int]]:
    for power, root in POWERS:
        for drop in range(bits - 1):
            if -(-(bits - drop) * power // root) >= MIN_GUESSES.bit_length() - 1:
                yield power, root, drop


def _roots(domain: Domain, power: int, root: int, drop: int) -> tuple[IntArray, int]:
    """Return the guess of every u, and how many guesses there are."""
    given = (domain.u >> drop | 1) ** power
    # frexp takes doubles, which round beyond 2**53: compare with the powers themselves
    lengths = np.searchsorted(2 ** np.arange(62), given, side="right")
    y = 2 ** ((lengths + root - 1) // root)
    for _ in range(ITERATIONS):
        quotient = given // y ** (root - 1)
        y = (y * (root - 1) + quotient) // root
    count = 1 << -(-(domain.value_bits - drop) * power // root)
    return np.minimum(y, count - 1), count

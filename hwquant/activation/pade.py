"""Quotients of polynomials, fitted to a staircase whatever function it comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, cast

import numpy as np
from scipy.optimize import lsq_linear  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from hwquant.activation.cost import cost
from hwquant.activation.window import Domain, spread, windows
from hwquant.ir import FloatArray, IntArray, PowerPade
from hwquant.ir_tensor import horner, quotient_bits

DEGREES = (1, 2, 3)  # of numerator and denominator
TERM_BITS = (8, 10, 12, 15)  # of the denominator's sum
EXTRA_GUESS_BITS = (0, 1, 2)  # beyond the rank's
DROPS = (0, 2, 4, 6)
REWEIGHTINGS = 12
MAX_STAGES = 4
LEAST_DENOMINATOR = 1e-6  # that a weight counts with; coefficients add up to 1


@dataclass(frozen=True)
class _Shape:
    degree: int
    term_bits: int
    guess_bits: int
    drop: int


def fit_pade(given: Sequence[Domain]) -> list[PowerPade] | None:
    """Build the quotients of least cost that share a unit, or ``None`` where none is near enough.

    The quotient is fitted to the ranks at the steps; comparisons make up for its error.
    """
    rank_bits = max(len(domain.steps) for domain in given).bit_length()
    best: list[PowerPade] | None = None
    for degree in DEGREES:
        real = [_least_squares(domain, degree) for domain in given]
        for term_bits, extra, drop in product(TERM_BITS, EXTRA_GUESS_BITS, DROPS):
            if drop < given[0].value_bits:
                shape = _Shape(degree, term_bits, rank_bits + extra, drop)
                made = _pade(given, real, shape)
                if made and (best is None or sum(map(cost, made)) < sum(map(cost, best))):
                    best = made
    return best


def _pade(
    given: Sequence[Domain], real: Sequence[FloatArray], shape: _Shape
) -> list[PowerPade] | None:
    terms = [_integers(real[at], shape) for at in range(len(given))]
    count = 1 << shape.guess_bits
    spreads = [
        spread(domain, _quotients(domain, *terms[at], shape.drop, count), count)
        for at, domain in enumerate(given)
    ]
    found = windows(spreads, MAX_STAGES)
    if found is None:
        return None
    above, below = ([_whole(each[side]) for each in terms] for side in (0, 1))
    x_bits = given[0].value_bits - shape.drop
    bits = [quotient_bits(*each, x_bits) for each in zip(above, below, strict=True)]
    longest = max(shape.guess_bits, *bits)
    return [
        PowerPade(d.low, d.value_bits, found[at], shape.drop, above[at], below[at], longest)
        for at, d in enumerate(given)
    ]


def _whole(terms: IntArray) -> tuple[int, ...]:
    return tuple(int(term) for term in terms)


def _least_squares(domain: Domain, degree: int) -> FloatArray:
    """Fit numerator and denominator, ``float[2, degree + 1]``, to ranks as a share of all.

    No coefficient is negative. Each round weighs the linear equations ``P - y Q = 0`` by the last
    round's ``1 / Q``, so that they come to mean ``P / Q = y`` (Sanathanan and Koerner 1963).
    """
    x = np.append(domain.steps, (1 << domain.value_bits) - 1) / 2.0**domain.value_bits
    y = np.arange(1, len(x) + 1) / len(domain.oracle.codes)
    powers = x[:, None] ** np.arange(degree + 1)
    norm = np.repeat([0.0, 1.0], degree + 1)
    weight, terms = np.ones_like(x), norm
    for _ in range(REWEIGHTINGS):
        rows = np.hstack([powers, -y[:, None] * powers]) * weight[:, None]
        wanted = np.append(0 * x, 1.0)
        solved = cast(Any, lsq_linear(np.vstack([rows, norm]), wanted, (0, np.inf)))
        terms = np.asarray(solved.x, dtype=np.float64)
        weight = 1 / np.maximum(powers @ terms[degree + 1 :], LEAST_DENOMINATOR)
    return terms.reshape(2, degree + 1)


def _integers(terms: FloatArray, shape: _Shape) -> tuple[IntArray, IntArray]:
    unit = float((1 << shape.term_bits) / terms[1].sum())
    numerator = np.asarray(np.rint(terms[0] * unit * (1 << shape.guess_bits)), np.int64)
    denominator = np.asarray(np.rint(terms[1] * unit), np.int64)
    denominator[0] = max(denominator[0], 1)
    return numerator, denominator


def _quotients(
    domain: Domain, numerator: IntArray, denominator: IntArray, drop: int, count: int
) -> IntArray:
    """Return the guess of every u."""
    x, bits = domain.u >> drop, domain.value_bits - drop
    quotients = horner(numerator.tolist(), x, bits) // horner(denominator.tolist(), x, bits)
    return np.minimum(quotients, count - 1)

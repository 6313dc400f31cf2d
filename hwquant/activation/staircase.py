"""The oracle: exact staircases, of the codes alone or of an activation function."""

import numpy as np

from hwquant.float_graph import Function
from hwquant.functions import evaluate, turning_point
from hwquant.ir import FloatArray, IntArray, Thresholds
from hwquant.power import Codebook

FRACTION_BITS = 16  # v is in units of the output's range / 2**16
FULL_SCALE = 1 << FRACTION_BITS
FAR_ENOUGH = 32.0  # SiLU and GELU are 0 there to the left, sigmoids 1 to the right
FARTHEST = 2.0**40
BISECTIONS = 100  # until neighbouring doubles


def thresholds(book: Codebook, act_bits: int) -> Thresholds:
    """Build the exact staircase from v to packed code, v in units of the range / 2**16.

    It serves ReLU, whose codes saturate where ReLU and its ceiling do, and tensors without an
    activation function, channels of different scales included. A threshold is the ceiling of its
    real position, so ``v`` reaches it exactly when ``v`` reaches the position. Of codes that begin
    at the same integer only the highest is kept.

    Source
    ------
    PowerQuant, algorithm 2: the power function and the rounding of the next layer's input fused
    with ReLU. One digit: steps at ``((q - 1/2) / Lx)**(1/a)``; two: midway between levels.
    """
    positions = np.ceil(book.edges * FULL_SCALE).astype(np.int64)
    return _staircase(positions, book.packed(act_bits))


def function_thresholds(
    function: Function, book: Codebook, zero: float, scale: float, act_bits: int
) -> tuple[Thresholds, float]:
    """Build the exact staircase ``v -> code of f(v * unit)``, and choose the unit.

    A value y of the function has the code of ``(y - zero) / scale``. The unit brings the outermost
    step to 2**16. A function that falls before it rises has its steps down first.

    Source
    ------
    PowerQuant, algorithm 2 and eq. 5 (the zero points of SiLU and GELU).
    """
    edges, codes = zero + scale * book.edges, book.packed(act_bits)
    turn = turning_point(function)
    far = _far(function, edges)
    start = -far if turn is None else turn
    bottom, top, left = (float(evaluate(function, np.array(x))) for x in (start, far, -far))
    up = np.flatnonzero((edges > bottom) & (edges <= top))
    down = np.flatnonzero((edges > bottom) & (edges <= left))[::-1] if turn is not None else up[:0]
    falls = _inverse(function, edges[down], -far, start)
    rises = _inverse(function, edges[up], start, far)
    crossed = np.concatenate([falls, rises])
    unit = max(float(np.abs(crossed).max(initial=0.0)), 1e-6) / FULL_SCALE
    positions = np.concatenate([np.floor(falls / unit) + 1, np.ceil(rises / unit)])
    first = codes[[int((edges <= (left if turn is not None else bottom)).sum())]]
    after = np.concatenate([first, codes[down], codes[up + 1]])
    return _staircase(positions.astype(np.int64), after), unit


def _far(function: Function, edges: FloatArray) -> float:
    """Return an x beyond which no edge is crossed."""
    far = 1.0
    while far < FARTHEST and float(evaluate(function, np.array(far))) < edges[-1]:
        far *= 2
    lowest = float(evaluate(function, np.array(-far)))
    while far < FARTHEST and turning_point(function) is None and lowest > edges[0]:
        far *= 2
        lowest = float(evaluate(function, np.array(-far)))
    return max(far, FAR_ENOUGH)


def _inverse(function: Function, values: FloatArray, low: float, high: float) -> FloatArray:
    """Find x with ``function(x) == value`` where the function rises or falls all the way."""
    lower, upper = np.full(len(values), low), np.full(len(values), high)
    ends = evaluate(function, np.array([low, high]))
    is_rising = ends[1] >= ends[0]
    for _ in range(BISECTIONS):
        middle = (lower + upper) / 2
        below = (evaluate(function, middle) < values) == is_rising
        lower, upper = np.where(below, middle, lower), np.where(below, upper, middle)
    return upper


def _staircase(positions: IntArray, codes: IntArray) -> Thresholds:
    """Keep, of steps at the same integer, the last."""
    last = np.append(positions[1:] != positions[:-1], True)
    return Thresholds(
        tuple(int(p) for p in positions[last]),
        (int(codes[0]), *(int(c) for c in codes[1:][last])),
    )

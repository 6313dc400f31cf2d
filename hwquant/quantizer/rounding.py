"""How weights are rounded to codes: each to the nearest, or those of a channel together."""

from typing import Literal, cast

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dtrtri  # pyright: ignore

from hwquant.ir import FloatArray, IntArray
from hwquant.power import Codebook

Rounding = Literal["nearest", "second_order", "squant"]

SCALES = (1.0, 0.9, 0.8, 0.7)  # of a channel's largest weight
FARTHEST = 1.5  # more than the largest weight over the smallest scale
BINS = 1 << 12  # of weights, in the choice of scales
DAMPING = 0.05  # of the mean square of an input, added to all: the inputs are synthetic
BLOCK = 64  # columns whose errors reach the columns behind them by one matrix product


def round_weights(
    weight: FloatArray, book: Codebook, moment: FloatArray, rounding: Rounding, taps: int = 1
) -> tuple[IntArray, FloatArray]:
    """Choose codes and scales of a layer, output channel by output channel.

    ``weight`` is ``float[G, M, K]``: G groups of M output channels that read the same K inputs.
    ``moment`` (``float[G * R, K / R, K / R]``) is the inputs' covariance, of each of R runs of
    inputs by itself. ``taps`` neighbours of K are a kernel: the weights between one input channel
    and one output channel. Returns ranks in the codebook, ``int[G, M, K]``, and scales,
    ``float[G, M]``; a channel of zeros gets scale 0.

    Every channel takes, of ``SCALES`` times its largest weight, the scale at which rounding to the
    nearest code has the least error, each input's counted by its power. ``nearest`` stops there.
    ``second_order`` then rounds one input's weights after the other and lets the run's weights not
    yet rounded take up the error. ``squant`` keeps the largest weight as the scale: see there.

    Source
    ------
    PowerQuant, eq. 2 (nearest in the power domain). GPTQ (Frantar et al. 2022), after Optimal Brain
    Surgeon: rounding in the order of falling input power. Differs: synthetic inputs, and codes on a
    power grid.
    """
    damping = DAMPING * np.trace(moment, axis1=1, axis2=2) / moment.shape[1]
    damping = np.maximum(damping, np.finfo(np.float32).tiny)
    moment = moment + damping[:, None, None] * np.eye(moment.shape[1])
    largest = np.abs(weight).max(axis=2)
    unit = weight / np.where(largest > 0, largest, 1.0)[:, :, None]
    if rounding == "squant":
        return squant(unit.reshape(*largest.shape, -1, taps), book).reshape(weight.shape), largest
    share = _choose_scale(unit, book, np.einsum("gkk->gk", moment).reshape(len(weight), -1))
    unit = unit / share[:, :, None]
    ranks = book.rank(unit)
    if rounding == "second_order" and moment.shape[1] > 1:
        runs = len(moment) // len(weight)
        parts = enumerate(np.split(unit, runs, axis=2))
        ranks = np.concatenate(
            [_second_order(part, book, moment[run::runs]) for run, part in parts], axis=2
        )
    return ranks, largest * share


def squant(weight: FloatArray, book: Codebook) -> IntArray:
    """Round so that errors cancel: ``float[..., C, T] -> int[..., C, T]``, ranks in the codebook.

    The last axis is a kernel, the last two are an output channel; ``weight`` is in -1..1, between
    the outermost codes. A flip moves a code to its neighbour on the other side of the weight, and
    the gap between the two is its step. The first to be flipped are those whose error is the
    largest part of their step.

    Error
    -----
    The errors of a kernel, and then those of an output channel, sum up to at most half the step
    of the first code that was not flipped or the last that was. The second pass flips at most one
    code of a kernel, and leaves the kernel's sum below the step of that code. No code is farther
    from its weight than one step.

    Source
    ------
    SQuant (Guo et al., ICLR 2022): element, kernel, channel. Differs: symmetric codes. On a power
    grid every code has a step of its own: as many flips as leave the least sum (on a uniform grid:
    the rounded sum). There the nearest code in the power domain may be more than half its step
    away; where a kernel has one tap it moves to the nearest.
    """
    ranks = book.rank(weight)
    error = book.values[ranks] - weight
    moved = ranks - np.sign(error).astype(np.int64)
    step = np.abs(book.values[moved] - book.values[ranks])
    is_flipped, left, last, last_step = _flip(error, step)
    again = _flip(left, last_step)[0]
    at = last[..., None]
    toggled = np.take_along_axis(is_flipped, at, axis=-1) ^ again[..., None]
    np.put_along_axis(is_flipped, at, toggled, axis=-1)
    return np.where(is_flipped, moved, ranks)


def _flip(
    error: FloatArray, step: FloatArray
) -> tuple[npt.NDArray[np.bool_], FloatArray, IntArray, FloatArray]:
    """Choose the flips along the last axis that leave the least sum.

    ``error`` and ``step`` are ``float[..., T]``, and a flip takes the step off an error's size. The
    sum keeps its sign or overshoots: one more flip, or one fewer, would give it the other sign.
    Returns what is flipped (``bool[..., T]``), the sums left, and of that one flip its place and
    its step (``[...]`` each; step 0 where there is none).
    """
    total = error.sum(axis=-1)
    is_open = (error * np.sign(total)[..., None] > 0) & (step > 0)
    priority = np.where(is_open, np.abs(error) / np.where(is_open, step, 1.0), -1.0)
    order = np.argsort(-priority, axis=-1, kind="stable")
    steps = np.take_along_axis(np.where(is_open, step, 0.0), order, axis=-1)
    taken = np.pad(np.cumsum(steps, axis=-1), [(0, 0)] * total.ndim + [(1, 0)])
    count = np.argmin(np.abs(np.abs(total)[..., None] - taken), axis=-1)  # the first: fewest flips
    rest = np.abs(total) - np.take_along_axis(taken, count[..., None], axis=-1)[..., 0]
    place = np.argsort(order, axis=-1)
    at = np.minimum(count - (rest < 0), error.shape[-1] - 1)[..., None]
    last = np.take_along_axis(order, at, axis=-1)[..., 0]
    last_step = np.take_along_axis(steps, at, axis=-1)[..., 0]
    return place < count[..., None], rest * np.sign(total), last, last_step


def _choose_scale(unit: FloatArray, book: Codebook, power: FloatArray) -> FloatArray:
    """Scale of every channel, one of ``SCALES``; ``power`` is ``float[G, K]``.

    Errors are looked up with weights in ``BINS`` bins, which is much quicker than to encode them.
    """
    half = BINS // 2
    centres: FloatArray = (np.arange(BINS, dtype=np.float64) + 0.5 - half) * (FARTHEST / half)
    levels = book.values[book.rank(centres)].astype(np.float32)
    small, weights = unit.astype(np.float32), power[:, None, :].astype(np.float32)
    share, least = np.ones(unit.shape[:2]), np.full(unit.shape[:2], np.inf)
    for trial in SCALES:
        bins = (small * np.float32(half / FARTHEST / trial) + np.float32(half)).astype(np.int32)
        error = levels[bins] * np.float32(trial) - small
        error *= error
        cost = np.einsum("gmk,gok->gm", error, weights)
        better = cost < least
        least[better], share[better] = cost[better], trial
    return share


def _second_order(weight: FloatArray, book: Codebook, moment: FloatArray) -> IntArray:
    """Round ``float[G, M, K]`` in units of the scale; ``moment`` is positive definite."""
    count = weight.shape[2]
    order = np.argsort(-np.einsum("gkk->gk", moment), axis=1, kind="stable")
    group: IntArray = np.arange(len(moment), dtype=np.int64)[:, None, None]
    moment = moment[group, order[:, :, None], order[:, None, :]]
    spread = _inverse_factor(moment)
    rest = np.take_along_axis(weight.transpose(0, 2, 1), order[:, :, None], axis=1)  # [G, K, M]
    ranks = np.zeros(rest.shape, dtype=np.int64)
    for first in range(0, count, BLOCK):
        last = min(first + BLOCK, count)
        block = rest[:, first:last].copy()
        for at in range(last - first):
            rows = spread[:, first + at, first:last, None]
            ranks[:, first + at] = rank = book.rank(block[:, at])
            block[:, at] = error = (block[:, at] - book.values[rank]) / rows[:, at]
            block[:, at + 1 :] -= rows[:, at + 1 :] * error[:, None]
        rest[:, last:] -= spread[:, first:last, last:].transpose(0, 2, 1) @ block
    unsorted = np.empty_like(ranks)
    np.put_along_axis(unsorted, order[:, :, None], ranks, axis=1)
    return np.ascontiguousarray(unsorted.transpose(0, 2, 1))


def _inverse_factor(moment: FloatArray) -> FloatArray:
    """Upper U with ``inv(moment) = U.T @ U``; its rows say how an error spreads.

    The Cholesky factor L of the flipped matrix gives ``moment = R @ R.T`` with R = L flipped, which
    is upper, and U is its inverse.
    """
    flipped = np.linalg.cholesky(moment[:, ::-1, ::-1])
    if len(flipped) == 1:
        inverse = cast(FloatArray, dtrtri(flipped[0], lower=1)[0])
        return inverse[None, ::-1, ::-1]
    return np.asarray(np.linalg.inv(flipped), dtype=np.float64)[:, ::-1, ::-1]

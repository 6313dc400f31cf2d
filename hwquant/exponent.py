"""The search for the network's exponents: the paper's, and one that also sees the activations."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from scipy.optimize import minimize  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from hwquant.float_graph import per_input
from hwquant.ir import FloatArray, Pair
from hwquant.power import Grid
from hwquant.rounding import SCALES

LOWEST, HIGHEST = 0.25, 1.0
START = 0.65  # the paper finds optima about 0.55; scales per channel push them up to 0.75
STARTS = tuple(step / 100 for step in range(25, 101))  # large norms have minima beside the least
TOLERANCE = 1e-3  # of the exponent
WHOLE_EXPONENTS = tuple(step / 20 for step in range(5, 21))

Search = Literal["weights", "both", "separate"]
Error = Callable[[float], float]  # of an exponent
Noise = Callable[[Grid], float]


@dataclass(frozen=True, eq=False)
class Site:
    """A layer that the search sees.

    ``weight`` is ``float[M, C / G, KH, KW]``; ``samples`` (``float[C, n]``) are inputs in units of
    their range, ``scale`` (``float[C]``) that range.
    """

    weight: FloatArray
    groups: int
    samples: FloatArray
    scale: FloatArray


@dataclass(frozen=True, eq=False)
class Sorted:
    """Magnitudes of one layer in units of their range, sorted, with running moments.

    ``moments`` (``float[3, n + 1]``) are the running sums of g, g u and g u**2 over the sorted
    magnitudes u, each with the weight g of its squared error: that of any staircase is a few
    look-ups.
    """

    magnitudes: FloatArray
    moments: FloatArray

    @staticmethod
    def of(magnitudes: FloatArray, weights: FloatArray) -> "Sorted":
        """Sort magnitudes, ``float[n]`` in 0..1, each with the weight of its squared error."""
        order = np.argsort(magnitudes)
        u, g = magnitudes[order], weights[order]
        running = np.cumsum([g, g * u, g * u**2], axis=1)
        return Sorted(u, np.pad(running, ((0, 0), (1, 0))))

    @staticmethod
    def of_weights(weight: FloatArray, gain: FloatArray) -> "Sorted":
        """Sort a layer, ``float[M, C, KH, KW]``; ``gain`` (``float[M, C]``) weighs its errors."""
        scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
        magnitudes = np.abs(weight) / np.maximum(scale, np.finfo(float).tiny)
        weights = np.broadcast_to((scale * gain[:, :, None, None]) ** 2, weight.shape)
        return Sorted.of(magnitudes.ravel(), weights.ravel())

    def square_error(self, grid: Grid, share: float = 1.0) -> float:
        """Squared error of the layer on a grid whose largest level is ``share`` of the range."""
        levels = share * grid.levels
        cuts = np.searchsorted(self.magnitudes, share * grid.edges)
        ends = np.concatenate([[0], cuts, [len(self.magnitudes)]])
        zeroth, first, second = np.diff(self.moments[:, ends], axis=1)
        square = levels**2 * zeroth - 2 * levels * first + second
        return max(float(square.sum()), 0.0)


def find_grids(
    sites: Sequence[Site],
    tops: Pair,
    search: Search,
    norm: float = 2.0,
    exponent: float | None = None,
    product_bits: int | None = None,
) -> tuple[Grid, Grid]:
    """Grids of least error for weights and for activations, of ``tops`` digits beside 0.

    The exponents are between 0.25 and 1. ``weights``: one exponent, by the paper's error: the sum
    over layers of the L``norm`` of the weights' error. ``both``: one exponent, by the sum over
    layers of noise over signal at the accumulator, to which rounded weights and rounded activations
    both add. ``separate``: an exponent each, by their own noise over signal. A given ``exponent``
    is that of both.

    With ``product_bits`` the levels are whole: of all full scales whose product has that many bits,
    those with the least noise, and of exponents those on ``WHOLE_EXPONENTS``, for levels rounded to
    whole numbers change in steps. They must be gapless in codes of two digits, unless the exponent
    is given.

    Source
    ------
    PowerQuant, eq. 3 with p = ``norm`` (appendix B recommends 2) and algorithm 1 (Nelder-Mead).
    Differs: scale per output channel; bounded. ``both`` and ``separate`` answer its appendix H,
    which blames the activations for where eq. 3 fails. Two exponents, which a table of products may
    undo, and whole levels, which it need not round, are not in the paper.
    """
    if exponent is None and search == "weights":
        error = weight_error(sites, tops[0], norm)
        exponent = find_minimum(error, START if norm == 2 else min(STARTS, key=error))
    if exponent is not None and product_bits is None:
        return Grid("power", exponent, tops[0]), Grid("power", exponent, tops[1])
    noises = weight_noise(sites), act_noise(sites)
    if product_bits is not None:
        return _whole_grids(noises, tops, search, exponent, product_bits)

    def real(operand: int) -> Callable[[float], float]:
        return lambda at: noises[operand](Grid("power", at, tops[operand]))

    if search == "both":
        exponents = (find_minimum(lambda at: real(0)(at) + real(1)(at)),) * 2
    else:
        exponents = find_minimum(real(0)), find_minimum(real(1))
    weights, acts = (Grid("power", at, top) for at, top in zip(exponents, tops, strict=True))
    return weights, acts


def _whole_grids(
    noises: tuple[Noise, Noise],
    tops: Pair,
    search: Search,
    exponent: float | None,
    product_bits: int,
) -> tuple[Grid, Grid]:
    """Choose among whole levels; ``exponent`` is that of both, if there is one already."""
    exponents = WHOLE_EXPONENTS if exponent is None else (exponent,)
    shift = tops[0].bit_length()

    def trials(operand: int, full_scale: int) -> tuple[list[Grid], FloatArray]:
        grids = [Grid("power", at, tops[operand], full_scale) for at in exponents]
        known: dict[bytes, float] = {}  # exponents beside each other often have the same levels
        for grid in grids:
            if (levels := grid.whole.tobytes()) not in known:
                is_tried = exponent is not None or grid.is_gapless(shift, operand == 0)
                known[levels] = noises[operand](grid) if is_tried else math.inf
        return grids, np.array([known[grid.whole.tobytes()] for grid in grids])

    least, best = math.inf, (Grid("uniform", 1.0, tops[0]), Grid("uniform", 1.0, tops[1]))
    for of_weights, of_acts in full_scales_of(tops, product_bits):
        weights, weight_noises = trials(0, of_weights)
        acts, act_noises = trials(1, of_acts)
        together = weight_noises + act_noises
        i, j = (
            (weight_noises.argmin(), act_noises.argmin())
            if search == "separate"
            else (together.argmin(), together.argmin())
        )
        noise = float(weight_noises[i] + act_noises[j])
        if noise < least:
            least, best = noise, (weights[i], acts[j])
    return best


def full_scales_of(tops: Pair, product_bits: int) -> list[Pair]:
    """Full scales of whole levels, weights' and activations', whose product has so many bits.

    For each of the weights' the largest of the activations'; empty where there is none.
    """
    largest = 2**product_bits - 1
    return [(of, largest // of) for of in range(tops[0], largest // tops[1] + 1)]


def find_minimum(error: Error, start: float = START) -> float:
    """Return the exponent of least error; the search walks downhill from ``start``."""
    found = minimize(  # pyright: ignore[reportUnknownVariableType]
        lambda x: error(float(x[0])),  # pyright: ignore
        [start],
        method="Nelder-Mead",
        bounds=[(LOWEST, HIGHEST)],
        options={"xatol": TOLERANCE, "fatol": math.inf},
    )
    return float(cast(Any, found).x[0])


def weight_error(sites: Sequence[Site], top: int, norm: float = 2.0) -> Error:
    """Return the summed norm of the layers' weight errors as a function of the exponent.

    ``norm`` is the p of the Lp norm, ``inf`` the largest error of a layer. 2 is looked up in
    running moments; for any other p every weight is encoded anew, which is slower. Large p jump.
    """
    if norm != 2:
        return lambda exponent: sum(
            float(np.linalg.norm(_weight_errors(site.weight, exponent, top), norm))
            for site in sites
        )
    layers = [Sorted.of_weights(site.weight, np.ones(site.weight.shape[:2])) for site in sites]
    return lambda exponent: sum(
        layer.square_error(Grid("power", exponent, top)) ** 0.5 for layer in layers
    )


def _weight_errors(weight: FloatArray, exponent: float, top: int) -> FloatArray:
    """Error of every weight on the grid, its sign aside; all of a layer in one row."""
    grid = Grid("power", exponent, top)
    scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    unit = np.abs(weight) / np.maximum(scale, np.finfo(float).tiny)
    return ((grid.levels[grid.encode(unit)] - unit) * scale).ravel()


def weight_noise(sites: Sequence[Site]) -> Noise:
    """Return the summed noise over signal that rounded weights make at the accumulators."""
    layers = list[tuple[Sorted, float]]()
    for site in sites:
        deviation = site.samples.std(axis=1) * site.scale
        gain = per_input(deviation, site.groups, len(site.weight))
        layers.append((Sorted.of_weights(site.weight, gain), _signal(site)))
    return lambda grid: sum(
        min(layer.square_error(grid, share) for share in SCALES) / signal
        for layer, signal in layers
    )


def act_noise(sites: Sequence[Site]) -> Noise:
    """Return the summed noise over signal that rounded activations make at the accumulators."""
    layers = list[tuple[Sorted, float]]()
    for site in sites:
        count = site.samples.shape[1]
        weights = np.repeat(_energy(site) / count, count)
        layers.append((Sorted.of(site.samples.ravel(), weights), _signal(site)))
    return lambda grid: sum(layer.square_error(grid) / signal for layer, signal in layers)


def _energy(site: Site) -> FloatArray:
    """Gain from the variance of a sample to that of the accumulators, ``float[C]``."""
    square = (site.weight**2).sum(axis=(2, 3)).reshape(site.groups, -1, site.weight.shape[1])
    return square.sum(axis=1).ravel() * site.scale**2


def _signal(site: Site) -> float:
    return max(float(_energy(site) @ site.samples.var(axis=1)), np.finfo(float).tiny)

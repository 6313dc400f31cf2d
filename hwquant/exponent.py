"""The search for the network's exponent: the paper's, and one that also sees the activations."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from scipy.optimize import minimize  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
from scipy.special import ndtri  # pyright: ignore[reportMissingTypeStubs]

from hwquant.ir import FloatArray
from hwquant.moments import Spread
from hwquant.power import Grid
from hwquant.ranges import tensor_range

LOWEST, HIGHEST = 0.25, 1.0
START = 0.65  # the paper finds optima about 0.55; scales per channel push them up to 0.75
TOLERANCE = 1e-3  # of the exponent
QUANTILES = 128  # equally likely samples of every channel's distribution

Search = Literal["weights", "both"]


@dataclass(frozen=True, eq=False)
class Site:
    """A layer of which the search sees the weights, ``float[M, C, KH, KW]``, and the source."""

    weight: FloatArray
    source: Spread


@dataclass(frozen=True, eq=False)
class SortedWeights:
    """A layer's magnitudes over their channel's largest, sorted, with running moments.

    ``moments`` (``float[3, n + 1]``) are the running sums of g, g u and g u**2 over the sorted
    magnitudes u = |w| / s, each weighted by its g = (gain s)**2: the squared error of any staircase
    is a few look-ups.
    """

    magnitudes: FloatArray
    moments: FloatArray

    @staticmethod
    def of(weight: FloatArray, gain: FloatArray) -> "SortedWeights":
        """Sort one layer, ``float[M, C, KH, KW]``; ``gain`` (``float[C]``) weighs its errors."""
        scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
        magnitudes = (np.abs(weight) / np.maximum(scale, np.finfo(float).tiny)).ravel()
        weights = np.broadcast_to((scale * gain[:, None, None]) ** 2, weight.shape).ravel()
        order = np.argsort(magnitudes)
        u, g = magnitudes[order], weights[order]
        running = np.cumsum([g, g * u, g * u**2], axis=1)
        return SortedWeights(u, np.pad(running, ((0, 0), (1, 0))))

    def square_error(self, grid: Grid) -> float:
        """Squared reconstruction error of the layer on a grid."""
        cuts = np.searchsorted(self.magnitudes, grid.edges)
        ends = np.concatenate([[0], cuts, [len(self.magnitudes)]])
        zeroth, first, second = np.diff(self.moments[:, ends], axis=1)
        square = grid.levels**2 * zeroth - 2 * grid.levels * first + second
        return max(float(square.sum()), 0.0)


def find_exponent(sites: Sequence[Site], weight_top: int, act_top: int, search: Search) -> float:
    """Exponent of least error, between 0.25 and 1.

    ``weights``: the paper's error, the sum over layers of the L2 norm of the weights' error.
    ``both``: the sum over layers of noise over signal at the accumulator, as the assumed
    distributions have it. Rounded weights and rounded activations both make noise; expected errors
    do not count, because the bias correction takes them out.

    Source
    ------
    PowerQuant, eq. 3 with p = 2 and algorithm 1 (Nelder-Mead). Differs: scale per output channel;
    bounded. ``both`` answers its appendix H, which blames the activations for where eq. 3 fails.
    """
    match search:
        case "weights":
            error = weight_error(sites, weight_top)
        case "both":
            error = noise_to_signal(sites, weight_top, act_top)
    found = minimize(  # pyright: ignore[reportUnknownVariableType]
        lambda x: error(float(x[0])),  # pyright: ignore
        [START],
        method="Nelder-Mead",
        bounds=[(LOWEST, HIGHEST)],
        options={"xatol": TOLERANCE, "fatol": math.inf},
    )
    return float(cast(Any, found).x[0])


def weight_error(sites: Sequence[Site], top: int) -> Callable[[float], float]:
    """Return the summed L2 norm of the layers' weight errors as a function of the exponent."""
    layers = [SortedWeights.of(site.weight, np.ones_like(site.source.mean)) for site in sites]

    def error(exponent: float) -> float:
        grid = Grid("power", exponent, top)
        return sum(layer.square_error(grid) ** 0.5 for layer in layers)

    return error


@dataclass(frozen=True, eq=False)
class _Signal:
    """One layer: its weights, and samples of its source in units of the range, ``float[C, n]``."""

    weights: SortedWeights
    samples: FloatArray
    gain: FloatArray  # from the variance of such a sample to that of the accumulators
    power: float

    @staticmethod
    def of(site: Site) -> "_Signal":
        uniform = (np.arange(QUANTILES) + 0.5) / QUANTILES
        quantiles = np.asarray(ndtri(uniform), dtype=np.float64)
        spread = site.source
        zero, scale = tensor_range(spread)
        gaussian = spread.mean[:, None] + spread.std[:, None] * quantiles
        clipped = np.clip(gaussian, spread.low, spread.high)
        samples = (clipped - zero[:, None]) / scale[:, None]
        gain = (site.weight**2).sum(axis=(0, 2, 3)) * scale**2
        power = max(float(gain @ samples.var(axis=1)), np.finfo(float).tiny)
        deviation = np.asarray(clipped.std(axis=1), dtype=np.float64)
        return _Signal(SortedWeights.of(site.weight, deviation), samples, gain, power)

    def noise(self, weights: Grid, acts: Grid) -> float:
        errors = acts.levels[acts.encode(self.samples)] - self.samples
        noise = self.weights.square_error(weights) + float(self.gain @ errors.var(axis=1))
        return noise / self.power


def noise_to_signal(
    sites: Sequence[Site], weight_top: int, act_top: int
) -> Callable[[float], float]:
    """Return the summed noise over signal of the accumulators as a function of the exponent."""
    layers = [_Signal.of(site) for site in sites]

    def error(exponent: float) -> float:
        weights, acts = (Grid("power", exponent, top) for top in (weight_top, act_top))
        return sum(layer.noise(weights, acts) for layer in layers)

    return error

"""The search for the network's exponents: the paper's, and one that also sees the activations."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from scipy.optimize import minimize  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from hwquant.float_graph import per_input
from hwquant.ir import FloatArray
from hwquant.power import Grid

LOWEST, HIGHEST = 0.25, 1.0
START = 0.65  # the paper finds optima about 0.55; scales per channel push them up to 0.75
STARTS = tuple(step / 100 for step in range(25, 101))  # large norms have minima beside the least
TOLERANCE = 1e-3  # of the exponent

Search = Literal["weights", "both", "separate"]
Error = Callable[[float], float]


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
        """Sort one layer, ``float[M, C, KH, KW]``; ``gain`` (``float[M, C]``) weighs its errors."""
        scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
        magnitudes = (np.abs(weight) / np.maximum(scale, np.finfo(float).tiny)).ravel()
        weights = np.broadcast_to((scale * gain[:, :, None, None]) ** 2, weight.shape).ravel()
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


def find_exponents(
    sites: Sequence[Site], weight_top: int, act_top: int, search: Search, norm: float = 2.0
) -> tuple[float, float]:
    """Exponents of least error for weights and for activations, between 0.25 and 1.

    ``weights``: one exponent, by the paper's error: the sum over layers of the L``norm`` of
    the weights' error. ``both``: one exponent, by the sum over layers of noise over signal at the
    accumulator, to which rounded weights and rounded activations both add. ``separate``: an
    exponent each, by their own noise over signal. Expected errors do not count, because the bias
    correction takes them out.

    Source
    ------
    PowerQuant, eq. 3 with p = ``norm`` (appendix B recommends 2) and algorithm 1 (Nelder-Mead).
    Differs: scale per output channel; bounded. ``both`` and ``separate`` answer its appendix H,
    which blames the activations for where eq. 3 fails; that a table of products may undo two
    exponents is not in the paper.
    """
    of_weights, of_acts = weight_noise(sites, weight_top), act_noise(sites, act_top)
    match search:
        case "weights":
            error = weight_error(sites, weight_top, norm)
            one = find_minimum(error, START if norm == 2 else min(STARTS, key=error))
            return one, one
        case "both":
            one = find_minimum(lambda exponent: of_weights(exponent) + of_acts(exponent))
            return one, one
        case "separate":
            return find_minimum(of_weights), find_minimum(of_acts)


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
    layers = [SortedWeights.of(site.weight, np.ones(site.weight.shape[:2])) for site in sites]
    return lambda exponent: sum(
        layer.square_error(Grid("power", exponent, top)) ** 0.5 for layer in layers
    )


def _weight_errors(weight: FloatArray, exponent: float, top: int) -> FloatArray:
    """Error of every weight on the grid, its sign aside; all of a layer in one row."""
    grid = Grid("power", exponent, top)
    scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    unit = np.abs(weight) / np.maximum(scale, np.finfo(float).tiny)
    return ((grid.levels[grid.encode(unit)] - unit) * scale).ravel()


def weight_noise(sites: Sequence[Site], top: int) -> Error:
    """Return the summed noise over signal that rounded weights make at the accumulators."""
    layers = list[tuple[SortedWeights, float]]()
    for site in sites:
        deviation = site.samples.std(axis=1) * site.scale
        gain = per_input(deviation, site.groups, len(site.weight))
        layers.append((SortedWeights.of(site.weight, gain), _signal(site)))

    def noise(exponent: float) -> float:
        grid = Grid("power", exponent, top)
        return sum(layer.square_error(grid) / signal for layer, signal in layers)

    return noise


def act_noise(sites: Sequence[Site], top: int) -> Error:
    """Return the summed noise over signal that rounded activations make at the accumulators."""
    layers = [(_energy(site), site.samples, _signal(site)) for site in sites]

    def noise(exponent: float) -> float:
        grid = Grid("power", exponent, top)
        total = 0.0
        for energy, samples, signal in layers:
            errors = grid.levels[grid.encode(samples)] - samples
            total += float(energy @ errors.var(axis=1)) / signal
        return total

    return noise


def _energy(site: Site) -> FloatArray:
    """Gain from the variance of a sample to that of the accumulators, ``float[C]``."""
    square = (site.weight**2).sum(axis=(2, 3)).reshape(site.groups, -1, site.weight.shape[1])
    return square.sum(axis=1).ravel() * site.scale**2


def _signal(site: Site) -> float:
    return max(float(_energy(site) @ site.samples.var(axis=1)), np.finfo(float).tiny)

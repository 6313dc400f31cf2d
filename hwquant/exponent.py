"""The search for the network's exponents: the paper's, and one that also sees the activations."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from scipy.optimize import minimize  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from hwquant.ir import FloatArray
from hwquant.power import Grid

LOWEST, HIGHEST = 0.25, 1.0
START = 0.65  # the paper finds optima about 0.55; scales per channel push them up to 0.75
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
    sites: Sequence[Site], weight_top: int, act_top: int, search: Search
) -> tuple[float, float]:
    """Exponents of least error for weights and for activations, between 0.25 and 1.

    ``weights``: one exponent, by the paper's error: the sum over layers of the L2 norm of the
    weights' error. ``both``: one exponent, by the sum over layers of noise over signal at the
    accumulator, to which rounded weights and rounded activations both add. ``separate``: an
    exponent each, by their own noise over signal. Expected errors do not count, because the bias
    correction takes them out.

    Source
    ------
    PowerQuant, eq. 3 with p = 2 and algorithm 1 (Nelder-Mead). Differs: scale per output channel;
    bounded. ``both`` and ``separate`` answer its appendix H, which blames the activations for where
    eq. 3 fails; that a table of products may undo two exponents is not in the paper.
    """
    of_weights, of_acts = weight_noise(sites, weight_top), act_noise(sites, act_top)
    match search:
        case "weights":
            one = find_minimum(weight_error(sites, weight_top))
            return one, one
        case "both":
            one = find_minimum(lambda exponent: of_weights(exponent) + of_acts(exponent))
            return one, one
        case "separate":
            return find_minimum(of_weights), find_minimum(of_acts)


def find_minimum(error: Error) -> float:
    """Return the exponent of least error."""
    found = minimize(  # pyright: ignore[reportUnknownVariableType]
        lambda x: error(float(x[0])),  # pyright: ignore
        [START],
        method="Nelder-Mead",
        bounds=[(LOWEST, HIGHEST)],
        options={"xatol": TOLERANCE, "fatol": math.inf},
    )
    return float(cast(Any, found).x[0])


def weight_error(sites: Sequence[Site], top: int) -> Error:
    """Return the summed L2 norm of the layers' weight errors as a function of the exponent."""
    layers = [SortedWeights.of(site.weight, np.ones(site.weight.shape[:2])) for site in sites]
    return lambda exponent: sum(
        layer.square_error(Grid("power", exponent, top)) ** 0.5 for layer in layers
    )


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


def per_input(numbers: FloatArray, groups: int, outputs: int) -> FloatArray:
    """Lay one number an input channel along the weights: ``float[C] -> float[M, C / G]``."""
    return np.repeat(numbers.reshape(groups, -1), outputs // groups, axis=0)


def _energy(site: Site) -> FloatArray:
    """Gain from the variance of a sample to that of the accumulators, ``float[C]``."""
    square = (site.weight**2).sum(axis=(2, 3)).reshape(site.groups, -1, site.weight.shape[1])
    return square.sum(axis=1).ravel() * site.scale**2


def _signal(site: Site) -> float:
    return max(float(_energy(site) @ site.samples.var(axis=1)), np.finfo(float).tiny)

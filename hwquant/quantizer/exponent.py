"""The search for the network's exponents: the paper's, and one that also sees the activations."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import numpy as np
from scipy.optimize import minimize  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from hwquant.float_graph import per_input
from hwquant.ir import FloatArray, Pair
from hwquant.power import Grid
from hwquant.quantizer.blocks import in_threads
from hwquant.quantizer.rounding import SCALES

LOWEST, HIGHEST = 0.25, 1.0
START = 0.65  # the paper finds optima about 0.55; scales per channel push them up to 0.75
STARTS = tuple(step / 100 for step in range(25, 101))  # large norms have minima beside the least
TOLERANCE = 1e-3  # of the exponent
WHOLE_EXPONENTS = tuple(step / 20 for step in range(5, 21))
LEAST_NOISE = 1e-9  # over signal; less is as good
LEAST_SIGNAL = 1e-100  # so that noise over it is finite
FINEST = 4  # of whole levels: the largest is at most so many times the number of levels

Search = Literal["weights", "both", "separate"]
Error = Callable[[float], float]  # of an exponent
# of n grids: noise over signal of every layer, ``float[n, L]``
Noise = Callable[[Sequence[Grid]], FloatArray]


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

    def square_errors(self, levels: FloatArray, edges: FloatArray) -> FloatArray:
        """Squared error of the layer on many grids: ``float[..., n + 1], float[..., n] -> [...]``.

        ``levels`` and ``edges`` are those of `Grid`.
        """
        inner = np.searchsorted(self.magnitudes, edges)
        ends = np.zeros((*inner.shape[:-1], inner.shape[-1] + 2), dtype=np.int64)
        ends[..., 1:-1] = inner
        ends[..., -1] = len(self.magnitudes)
        zeroth, first, second = np.diff(self.moments[:, ends], axis=-1)
        square = levels**2 * zeroth - 2 * levels * first + second
        return np.maximum(square.sum(axis=-1), 0.0)


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
    over layers of the L``norm`` of the weights' error. ``both``: one exponent, by the noise over
    signal at the accumulators, to which rounded weights and rounded activations both add: its
    geometric mean over layers, so that no layer drowns the others. ``separate``: an exponent each,
    by their own noise over signal. A given ``exponent`` is that of both.

    With ``product_bits`` the levels are whole: of `full_scales_of` those with the least noise, and
    of exponents those on ``WHOLE_EXPONENTS``, for levels rounded to whole numbers change in steps.
    They must be gapless in codes of two digits, unless the exponent is given.

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

    def real(operand: int, at: float) -> FloatArray:
        return noises[operand]([Grid("power", at, tops[operand])])[0]

    if search == "both":
        exponents = (find_minimum(lambda at: float(mean_log(real(0, at) + real(1, at)))),) * 2
    else:
        exponents = [find_minimum(lambda at, i=i: float(mean_log(real(i, at)))) for i in (0, 1)]
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
    beside = full_scales_of(tops, product_bits)

    def trials(operand: int, full_scales: Iterable[int]) -> list[Grid]:
        tried = [Grid("power", at, tops[operand], to) for to in full_scales for at in exponents]
        if exponent is None:
            shift, is_signed = tops[0].bit_length(), operand == 0
            tried = [grid for grid in tried if grid.is_gapless(shift, is_signed)]
        if search == "separate":  # exponents beside each other often have the same levels
            tried = list({grid.whole.tobytes(): grid for grid in reversed(tried)}.values())
        return tried

    least, best = math.inf, (Grid("uniform", 1.0, tops[0]), Grid("uniform", 1.0, tops[1]))
    of_weights, of_acts = trials(0, beside), trials(1, sorted({*beside.values()}))
    if not of_weights or not of_acts:
        return best
    full_scales = np.array([acts.full_scale for acts in of_acts])
    act_exponents = np.array([acts.exponent for acts in of_acts])
    act_noises = noises[1](of_acts)
    for weights, noise in zip(of_weights, noises[0](of_weights), strict=True):
        fits = full_scales == beside[weights.full_scale]
        if search != "separate":
            fits &= act_exponents == weights.exponent
        together = np.where(fits, mean_log(noise + act_noises), math.inf)
        at = int(together.argmin())
        if together[at] < least:
            least, best = together[at], (weights, of_acts[at])
    return best


def full_scales_of(tops: Pair, product_bits: int) -> dict[int, int]:
    """Full scales of whole weights, and of each the largest of activations beside it.

    So large that their product has ``product_bits``, and not needlessly fine.
    """
    largest, (weights, acts) = 2**product_bits - 1, tops
    most = min(largest // acts, FINEST * weights)
    return {to: min(largest // to, FINEST * acts) for to in range(weights, most + 1)}


def search_errors(
    sites: Sequence[Site], weights: Grid, acts: Grid, norm: float = 2.0
) -> dict[str, float]:
    """Errors that a search may make least: eq. 3's, and means over layers of noise over signal."""
    of_weights, of_acts = weight_noise(sites)([weights])[0], act_noise(sites)([acts])[0]
    return {
        "weight error": weight_error(sites, weights.top, norm)(weights.exponent),
        "weight noise": math.exp(mean_log(of_weights)),
        "act noise": math.exp(mean_log(of_acts)),
        "both noises": math.exp(mean_log(of_weights + of_acts)),
    }


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

    def root(exponent: float) -> float:
        grid = Grid("power", exponent, top)
        return sum(layer.square_errors(grid.levels, grid.edges).item() ** 0.5 for layer in layers)

    return root


def _weight_errors(weight: FloatArray, exponent: float, top: int) -> FloatArray:
    """Error of every weight on the grid, its sign aside; all of a layer in one row."""
    grid = Grid("power", exponent, top)
    scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    unit = np.abs(weight) / np.maximum(scale, np.finfo(float).tiny)
    return ((grid.levels[grid.encode(unit)] - unit) * scale).ravel()


def weight_noise(sites: Sequence[Site]) -> Noise:
    """Return the noise over signal that rounded weights make at each layer's accumulators.

    The best of ``rounding.SCALES``, one for a whole layer.
    """

    def layer(site: Site) -> tuple[Sorted, float]:
        deviation = site.samples.std(axis=1) * site.scale
        gain = per_input(deviation, site.groups, len(site.weight))
        return Sorted.of_weights(site.weight, gain), _signal(site)

    return partial(_noises, in_threads(layer, sites), np.array(SCALES))


def act_noise(sites: Sequence[Site]) -> Noise:
    """Return the noise over signal that rounded activations make at each layer's accumulators."""

    def layer(site: Site) -> tuple[Sorted, float]:
        count = site.samples.shape[1]
        weights = np.repeat(_energy(site) / count, count)
        return Sorted.of(site.samples.ravel(), weights), _signal(site)

    return partial(_noises, in_threads(layer, sites), np.ones(1))


def _noises(
    layers: Sequence[tuple[Sorted, float]], shares: FloatArray, grids: Sequence[Grid]
) -> FloatArray:
    """Noise over signal, ``float[n, L]``, each the least of grids that end at so many shares."""
    levels = np.array([grid.levels for grid in grids])[:, None] * shares[:, None]
    edges = np.array([grid.edges for grid in grids])[:, None] * shares[:, None]
    found = [layer.square_errors(levels, edges).min(axis=1) / signal for layer, signal in layers]
    return np.stack(found, axis=1)


def mean_log(noise: FloatArray) -> FloatArray:
    """Logarithm of the layers' geometric mean, ``float[..., L] -> float[...]``."""
    return np.log(np.maximum(noise, LEAST_NOISE)).mean(axis=-1)


def _energy(site: Site) -> FloatArray:
    """Gain from the variance of a sample to that of the accumulators, ``float[C]``."""
    square = (site.weight**2).sum(axis=(2, 3)).reshape(site.groups, -1, site.weight.shape[1])
    return square.sum(axis=1).ravel() * site.scale**2


def _signal(site: Site) -> float:
    return max(float(_energy(site) @ site.samples.var(axis=1)), LEAST_SIGNAL)

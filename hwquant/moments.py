"""What can be known of a network's tensors without data: mean and spread per channel.

Where a batch norm followed a convolution its statistics are stored in the network. Everything else
is propagated from them, or from the sensor's range, as Gaussians.
"""

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import assert_never

import numpy as np
from scipy.special import ndtr  # pyright: ignore[reportMissingTypeStubs]

from hwquant.float_graph import (
    FloatActivation,
    FloatAdd,
    FloatAveragePool,
    FloatConcat,
    FloatConv,
    FloatGraph,
    FloatMaxPool,
    FloatMultiply,
    FloatNode,
    FloatShortcut,
    Function,
    Moments,
    Relu,
)
from hwquant.functions import bounds, evaluate
from hwquant.ir import INPUT, FloatArray, Pair

# Correlations chosen so that propagated moments come close to stored ones (resnet20, 32, 56, 8).
TAP_CORRELATION = 0.5  # of neighbouring pixels of one channel; falls with distance as a power
PIXEL_CORRELATION = 0.9  # the same for the sensor's pixels
COLOUR_CORRELATION = 0.5  # of the sensor's channels among each other
SKIP_CORRELATION = 0.3  # of a residual add's operands; 0.5 fits stds better and means worse
NODES = 65  # of the quadrature that propagates through an activation function
TINY = 1e-12  # keeps a constant channel's spread from being divided by


@dataclass(frozen=True, eq=False)
class Spread:
    """What is assumed of a tensor: per channel a Gaussian, clipped to ``low..high``.

    ``mean`` and ``std`` (``float[C]``) are those before clipping; ``is_stored`` claims that they
    come from a batch norm, not from propagation.
    """

    mean: FloatArray
    std: FloatArray
    low: float = -math.inf
    high: float = math.inf
    is_stored: bool = False

    def below(self, edges: FloatArray) -> FloatArray:
        """Probability that the Gaussian lies below ``edges``; ``float[C, n] -> float[C, n]``."""
        return normal_cdf((edges - self.mean[:, None]) / (self.std[:, None] + TINY))

    def clipped(self) -> Moments:
        """Mean and standard deviation after clipping, closed form (rectified Gaussian)."""
        low, high = max(self.low, -1e30), min(self.high, 1e30)
        std = self.std + TINY
        a, b = (low - self.mean) / std, (high - self.mean) / std
        mass_low, mass_high = normal_cdf(a), normal_cdf(-b)
        inside = 1 - mass_low - mass_high
        pdf_a, pdf_b = _normal_pdf(a), _normal_pdf(b)
        finite_low = 0.0 if math.isinf(self.low) else low
        finite_high = 0.0 if math.isinf(self.high) else high
        mean = (
            finite_low * mass_low
            + finite_high * mass_high
            + self.mean * inside
            + std * (pdf_a - pdf_b)
        )
        square = (
            finite_low**2 * mass_low
            + finite_high**2 * mass_high
            + (self.mean**2 + std**2) * inside
            + std * self.mean * (pdf_a - pdf_b)
            + std * (finite_low * pdf_a - finite_high * pdf_b)
        )
        return Moments(mean, np.sqrt(np.maximum(square - mean**2, 0)))


def spreads(graph: FloatGraph, pixels: Spread) -> dict[str, Spread]:
    """Assumed distribution of the input (``pixels``) and of every node's output.

    Source
    ------
    Nagel et al. 2019 (batch-norm statistics, clipped normal). Differs: also propagates through
    convolutions without batch norm, pools and residual adds.
    """
    known = {INPUT: pixels}
    for node in graph.nodes:
        known[node.name] = _spread(node, known)
    return known


def _spread(node: FloatNode, known: dict[str, Spread]) -> Spread:
    match node:
        case FloatConv():
            if node.moments is not None:
                return Spread(node.moments.mean, node.moments.std, is_stored=True)
            return _convolve(node, known[node.source])
        case FloatActivation(function=Relu(ceiling=ceiling)):
            source = known[node.source]
            high = source.high if ceiling is None else min(source.high, ceiling)
            return replace(source, low=max(source.low, 0.0), high=high)
        case FloatActivation():
            return _apply(node.function, known[node.source])
        case FloatAdd():
            one, two = (known[name].clipped() for name in node.sources)
            covariance = SKIP_CORRELATION * one.std * two.std
            std = np.sqrt(one.std**2 + two.std**2 + 2 * covariance)
            return Spread(one.mean + two.mean, std)
        case FloatShortcut():
            source = known[node.source].clipped()
            mean, std = np.zeros(node.channels), np.zeros(node.channels)
            span = slice(node.channel_offset, node.channel_offset + len(source.mean))
            mean[span], std[span] = source.mean, source.std
            return Spread(mean, std)
        case FloatMaxPool():
            return _maximum(known[node.source], node.kernel)
        case FloatAveragePool():
            source = known[node.source].clipped()
            taps = np.full(math.prod(node.kernel), 1 / math.prod(node.kernel))
            gain = math.sqrt(taps @ tap_correlation(node.kernel) @ taps)
            return Spread(source.mean, source.std * gain)
        case FloatConcat():
            return _concatenate([known[name] for name in node.sources])
        case FloatMultiply():
            one, gate = known[node.source].clipped(), known[node.gate].clipped()
            square = (one.mean**2 + one.std**2) * (gate.mean**2 + gate.std**2)
            mean = one.mean * gate.mean
            return Spread(mean, np.sqrt(np.maximum(square - mean**2, 0)))
        case _:
            assert_never(node)


def _apply(function: Function, source: Spread) -> Spread:
    """Propagate through a function of every element, by quadrature over the clipped Gaussian."""
    at, weights = np.polynomial.hermite_e.hermegauss(NODES)
    samples = source.mean[:, None] + source.std[:, None] * at
    values = evaluate(function, np.clip(samples, source.low, source.high))
    weights = weights / weights.sum()
    mean = values @ weights
    variance = (values - mean[:, None]) ** 2 @ weights
    low, high = bounds(function)
    return Spread(mean, np.sqrt(variance), low, high)


def _concatenate(sources: list[Spread]) -> Spread:
    """Lay channels side by side; clipped one by one where their bounds differ."""
    low, high = min(s.low for s in sources), max(s.high for s in sources)
    if any((s.low, s.high) != (low, high) for s in sources):
        moments = [s.clipped() for s in sources]
        sources = [Spread(m.mean, m.std) for m in moments]
    return Spread(
        np.concatenate([s.mean for s in sources]),
        np.concatenate([s.std for s in sources]),
        low,
        high,
        all(s.is_stored for s in sources),
    )


def _convolve(node: FloatConv, source: Spread) -> Spread:
    """Propagate through a convolution: taps of one channel are correlated, channels are not."""
    first = node.source == INPUT
    moments = source.clipped()
    taps = node.weight.reshape(*node.weight.shape[:2], -1)
    correlation = tap_correlation(
        (node.weight.shape[2], node.weight.shape[3]),
        PIXEL_CORRELATION if first else TAP_CORRELATION,
    )
    between = COLOUR_CORRELATION if first else 0.0
    runs = (node.groups, -1)  # every group of output channels reads one run of channels
    quadratic = ((taps @ correlation) * taps).sum(2).reshape(*runs, taps.shape[1])
    sums = taps.sum(2).reshape(*runs, taps.shape[1])
    mean, std = moments.mean.reshape(*runs, 1), moments.std.reshape(*runs, 1)
    variance = (1 - between) * quadratic @ std**2 + between * (sums @ std) ** 2
    bias = node.bias
    return Spread((sums @ mean).ravel() + bias, np.sqrt(np.maximum(variance.ravel(), 0)))


def _maximum(source: Spread, kernel: Pair) -> Spread:
    """Approximate the maximum of a window's Gaussians by a Gaussian.

    The window counts as its number of independent pixels, ``1 / mean correlation``, and the maximum
    of n of them as Blom's approximation ``mean + std * quantile((n - 0.375) / (n + 0.25))``; the
    spread is kept, which is the larger side.
    """
    correlation = tap_correlation(kernel)
    count = 1 / float(correlation.mean())
    shift = NormalDist().inv_cdf((count - 0.375) / (count + 0.25))
    return replace(source, mean=source.mean + shift * source.std)


def tap_correlation(kernel: Pair, neighbours: float = TAP_CORRELATION) -> FloatArray:
    """Correlation of a window's pixels, ``neighbours ** distance``; ``float[K, K]``."""
    y, x = (axis.ravel() for axis in np.mgrid[: kernel[0], : kernel[1]])
    distance = np.hypot(y[:, None] - y, x[:, None] - x)
    return neighbours**distance


def normal_cdf(values: FloatArray) -> FloatArray:
    """Cumulative distribution of the standard normal."""
    return np.asarray(ndtr(values), dtype=np.float64)


def _normal_pdf(values: FloatArray) -> FloatArray:
    clamped = np.clip(values, -40, 40)
    return np.exp(-(clamped**2) / 2) / math.sqrt(2 * math.pi)

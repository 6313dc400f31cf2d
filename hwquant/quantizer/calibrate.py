"""What a network's layers do on synthetic images: the float pass of the quantizer.

Where a batch norm followed a convolution, its stored statistics are those of the training data. The
answers to synthetic images are moved and stretched, channel by channel, until they have the same:
so every layer sees inputs like those it was trained on, whatever the first layer was shown.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, assert_never

import numpy as np
import numpy.typing as npt

from hwquant.float_graph import (
    FloatConv,
    FloatEmbedding,
    FloatGraph,
    FloatLayerNorm,
    FloatMatMul,
    FloatSoftmax,
    Function,
    Moments,
)
from hwquant.functions import evaluate
from hwquant.ir import INPUT, FloatArray, Pair
from hwquant.quantizer.blocks import by_channels
from hwquant.quantizer.float_model import attend, columns, convolve, maximum, pad, read_last, total
from hwquant.quantizer.lower import FloatCat, FloatLayer, FloatMac, FloatMax, Skip

Values = npt.NDArray[np.floating[Any]]  # float[C, N, H, W]
Scalar = TypeVar("Scalar", bound=np.number[Any])

SAMPLES = 256  # of every channel, kept of a tensor
WINDOWS = 2048  # of a layer's inputs, about, in their covariance
MOST_INPUTS = 8192  # of a covariance, 0.5 GB: it grows with the square, time with the cube
NARROWEST, WIDEST = 0.2, 5.0  # stretch of a channel
MOST_RESTORED = 2.0  # factor of a layer's spread
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Spread:
    """How a tensor's values are distributed, per channel.

    ``mean`` and ``std`` (``float[C]``) are those before ``function``; ``is_stored`` claims that
    they come from a batch norm. ``samples`` (``float[C, n]``) are values of the tensor itself.
    """

    mean: FloatArray
    std: FloatArray
    function: Function | None
    is_stored: bool
    samples: FloatArray


@dataclass(frozen=True, eq=False)
class Response:
    """A layer's float answer: the means of its parts (``float[M]``), and how they were matched.

    ``sums`` is the mean of the biased sums, times the gate if there is one; ``skip`` that of the
    skip operand. ``std`` is the standard deviation of the sums. Matched sums are ``gain * sums +
    offset``.
    """

    sums: FloatArray
    skip: FloatArray
    std: FloatArray
    gain: FloatArray
    offset: FloatArray


@dataclass(frozen=True, eq=False)
class Calibration:
    """Everything that the float pass found: a response a MAC layer, a spread a tensor."""

    responses: dict[str, Response]
    spreads: dict[str, Spread]


def calibrate(graph: FloatGraph, layers: Sequence[FloatLayer], images: Values) -> Calibration:
    """Run the layers on synthetic images, ``float[C, N, H, W]``, matched to stored statistics.

    Source
    ------
    The idea that stored statistics make synthetic data fit: ZeroQ (Cai et al. 2020), which
    optimizes the images. Differs: every layer's answer is corrected instead, in one pass.
    """
    stored = {
        node.name: node.moments
        for node in graph.nodes
        if isinstance(node, FloatConv) and node.moments is not None
    }
    values = {INPUT: images}
    responses = dict[str, Response]()
    spreads = {INPUT: _spread(images, None, None, images)}
    reads = Counter(name for layer in layers for name in operands(layer))
    for layer in layers:
        match layer:
            case FloatMac():
                moments = stored.get(layer.name)
                sums = convolve_layer(layer, values[layer.source], layer.weight, layer.bias)
                std = channel_std(sums)
                mean = channel_mean(sums)
                gain, offset = _match(mean, std, moments)
                response = Response(
                    mean if layer.gate is None else channel_mean(gated(layer, sums, values)),
                    channel_mean(skipped(layer, sums.shape, values)),
                    std,
                    gain,
                    offset,
                )
                responses[layer.name] = response
                before = joined(layer, sums, values, response)
                made = before if layer.function is None else evaluate(layer.function, before)
                stats = moments if layer.skip is None else None
                spreads[layer.name] = _spread(before, layer.function, stats, made)
            case FloatMax() | FloatCat():
                made = rearranged(layer, values)
                spreads[layer.name] = _spread(made, None, None, made)
            case FloatEmbedding() | FloatLayerNorm() | FloatMatMul() | FloatSoftmax():
                made = attend(layer, values)
                spreads[layer.name] = _spread(made, None, None, made)
            case _:
                assert_never(layer)
        values[layer.name] = made
        for name in read_last(reads, operands(layer)):
            del values[name]
    return Calibration(responses, spreads)


def operands(layer: FloatLayer) -> tuple[str, ...]:
    """Names of the layers that a layer reads, each once."""
    match layer:
        case FloatMac():
            skip = () if layer.skip is None else (layer.skip.source,)
            gate = () if layer.gate is None else (layer.gate,)
            return tuple(dict.fromkeys((layer.source, *skip, *gate)))
        case FloatMax():
            return (layer.source,)
        case FloatCat():
            return layer.sources
        case FloatMatMul():
            return tuple(dict.fromkeys((layer.source, layer.operand)))
        case FloatEmbedding() | FloatLayerNorm() | FloatSoftmax():
            return (layer.source,)
        case _:
            assert_never(layer)


def convolve_layer(
    mac: FloatMac, source: Values, weight: FloatArray, bias: FloatArray, padding: float | Values = 0
) -> Values:
    """Biased sums of a layer: ``[C, N, H, W] -> [M, N, OH, OW]``."""
    inputs, _, stride = _inputs(mac, source, padding)
    return convolve(inputs, weight, bias, stride, mac.groups)


def covariance(mac: FloatMac, source: Values, padding: float | Values) -> FloatArray:
    """Covariance of what one output channel reads, over a part of the windows.

    ``float[C, N, H, W] -> float[G * R, K / R, K / R]``, with K = C / G * KH * KW in the order of
    weights, cut into R runs, as few as have ``MOST_INPUTS`` at most: between runs it is not known.
    """
    inputs, kernel, stride = _inputs(mac, source, padding)
    height, width = (
        (size - window) // step + 1
        for size, window, step in zip(inputs.shape[2:], kernel, stride, strict=True)
    )
    thinned = max(1, int((inputs.shape[1] * height * width / WINDOWS) ** 0.5))
    step = (stride[0] * min(thinned, height), stride[1] * min(thinned, width))
    channels = len(inputs) // mac.groups
    inner = channels * math.prod(kernel)
    runs = next(n for n in range(-(-inner // MOST_INPUTS), inner + 1) if inner % n == 0)
    found = np.empty((mac.groups, runs, inner // runs, inner // runs))

    def work(part: slice) -> None:
        of_groups = inputs[part.start * channels : part.stop * channels]
        taken = columns(of_groups, kernel, step, part.stop - part.start)
        taken = taken - taken.mean(axis=2, keepdims=True)
        taken = taken.reshape(len(taken), runs, inner // runs, -1)
        found[part] = taken @ taken.swapaxes(2, 3) / taken.shape[3]

    by_channels(mac.groups, inner * WINDOWS, work)
    return found.reshape(-1, *found.shape[2:])


def _inputs(mac: FloatMac, source: Values, padding: float | Values) -> tuple[Values, Pair, Pair]:
    """Return what the weights are slid over, with kernel and stride; shared ones over sums."""
    if mac.shared:
        return total(source, mac.kernel, mac.stride), (1, 1), (1, 1)
    return pad(source, mac.pads, padding), mac.kernel, mac.stride


def joined(mac: FloatMac, sums: Values, values: dict[str, Values], response: Response) -> Values:
    """Match the sums, and apply gate and skip: what the activation function is given."""
    before = sums * column(response.gain, sums)
    before += column(response.offset, sums)
    before = gated(mac, before, values)
    if mac.skip is not None:
        before += skipped(mac, sums.shape, values)
    return before


def gated(mac: FloatMac, sums: Values, values: dict[str, Values]) -> Values:
    """Multiply sums by the gate, if the layer has one."""
    return sums if mac.gate is None else sums * values[mac.gate]


def skipped(mac: FloatMac, shape: tuple[int, ...], values: dict[str, Values]) -> Values:
    """Return the skip operand in the place of the output, ``[M, N, OH, OW]``; zeros without."""
    if mac.skip is None:
        return np.zeros((shape[0], 1, 1, 1))
    return _place(mac.skip, shape[0], values[mac.skip.source])


def _place(skip: Skip, channels: int, source: Values) -> Values:
    kept = source[:, :, :: skip.stride[0], :: skip.stride[1]]
    if len(kept) == channels:
        return kept
    placed = np.zeros((channels, *kept.shape[1:]), kept.dtype)
    placed[skip.channel_offset : skip.channel_offset + len(kept)] = kept
    return placed


def rearranged(
    layer: FloatMax | FloatCat, values: Mapping[str, npt.NDArray[Scalar]]
) -> npt.NDArray[Scalar]:
    """Output of a layer that computes nothing: the same on values and on decoded codes."""
    match layer:
        case FloatMax():
            source = values[layer.source]
            padded = pad(source, layer.pads, source.min())  # codes have no -inf
            return maximum(padded, layer.kernel, layer.stride)
        case FloatCat():
            return np.concatenate([values[name] for name in layer.sources])
        case _:
            assert_never(layer)


def channel_mean(values: Values) -> FloatArray:
    """Mean of every channel: ``[C, ...] -> float[C]``."""
    return _of_channels(np.mean, values)


def channel_std(values: Values) -> FloatArray:
    """Spread of every channel, its standard deviation: ``[C, ...] -> float[C]``."""
    return _of_channels(np.std, values)


def _of_channels(measure: Callable[..., FloatArray], values: Values) -> FloatArray:
    found = np.empty(len(values))

    def work(part: slice) -> None:
        found[part] = measure(values[part], axis=(1, 2, 3), dtype=np.float64)

    by_channels(len(values), values[0].size, work)
    return found


def lost_spread(sums: Values, std: FloatArray) -> float:
    """Factor that gives quantized sums the spread they had in float, ``std`` (``float[M]``).

    The geometric mean over channels: synthetic images say too little of each alone. 1 where no
    channel varies.
    """
    made = channel_std(sums)
    varies = (made > TINY) & (std > TINY)
    if not varies.any():
        return 1.0
    ratio = math.exp(np.log(std[varies] / made[varies]).mean())
    return min(max(ratio, 1 / MOST_RESTORED), MOST_RESTORED)


def column(numbers: FloatArray, like: Values) -> Values:
    """One number a channel, to be combined with ``[C, N, H, W]`` in its precision."""
    return numbers.astype(like.dtype)[:, None, None, None]


def _match(
    mean: FloatArray, std: FloatArray, moments: Moments | None
) -> tuple[FloatArray, FloatArray]:
    """Gain and offset that give sums of these statistics those that a batch norm stored."""
    if moments is None:
        return np.ones_like(mean), np.zeros_like(mean)
    gain = np.clip(moments.std / (std + TINY), NARROWEST, WIDEST)
    return gain, moments.mean - gain * mean


def _spread(
    before: Values, function: Function | None, moments: Moments | None, made: Values
) -> Spread:
    flat = made.reshape(len(made), -1)
    step = max(1, flat.shape[1] // SAMPLES) | 1  # odd, so that it does not run down a column
    samples = flat[:, ::step].astype(np.float64)
    if moments is not None:
        return Spread(moments.mean, moments.std, function, True, samples)
    return Spread(channel_mean(before), channel_std(before), function, False, samples)

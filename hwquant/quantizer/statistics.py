"""How the float weights of a network are distributed, layer by layer."""

from collections.abc import Iterable

import numpy as np

from hwquant.ir import FloatArray, WeightStatistics
from hwquant.quantizer.lower import FloatLayer, FloatMac

DIGITS = 6  # significant ones: what they round away depends on the machine


def weight_statistics(layers: Iterable[FloatLayer]) -> tuple[WeightStatistics, ...]:
    """Describe the weights of every MAC layer as the quantizer sees them, batch norms folded in.

    Layers whose weights are all alike (average pools, identities) have no skewness: left out.

    Source
    ------
    PowerQuant, appendix E, which compares networks by the mean of each number over the layers.
    """
    macs = (layer for layer in layers if isinstance(layer, FloatMac))
    return tuple(describe(mac.name, mac.weight) for mac in macs if np.ptp(mac.weight) > 0)


def describe(layer: str, weight: FloatArray) -> WeightStatistics:
    """Return the central moments of ``weight``, of any shape, its elements not all alike.

    Raises
    ------
    BadInput
        If they are all alike.
    """
    away = weight - weight.mean()
    deviation = float(np.sqrt(np.square(away).mean()))
    unit = away / (deviation or 1.0)
    square = unit * unit  # much quicker than powers
    skewness, kurtosis = float((square * unit).mean()), float(np.square(square).mean())
    moments = (deviation, skewness, max(1.0, kurtosis))
    return WeightStatistics(layer, weight.size, *(float(f"{m:.{DIGITS}g}") for m in moments))

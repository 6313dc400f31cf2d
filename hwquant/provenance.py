"""Where a quantized network comes from: what reports say of it, and nothing computes with."""

import math
from dataclasses import dataclass

from hwquant.errors import BadInput


@dataclass(frozen=True)
class WeightStatistics:
    """The distribution of a layer's float weights, ``count`` of them.

    ``kurtosis`` is Pearson's: 3 for a normal distribution. Both it and ``skewness`` have no unit.

    Raises
    ------
    BadInput
        If there are fewer than two weights, they do not differ, or no weights have such moments.
    """

    layer: str
    count: int
    deviation: float
    skewness: float
    kurtosis: float

    def __post_init__(self) -> None:
        for name, value, fits, permitted in (
            ("count", self.count, self.count >= 2, "2 and up"),
            ("deviation", self.deviation, 0 < self.deviation < math.inf, "more than 0"),
            ("skewness", self.skewness, math.isfinite(self.skewness), "a finite number"),
            ("kurtosis", self.kurtosis, 1 <= self.kurtosis < math.inf, "1 and up"),
        ):
            if not fits:
                raise BadInput(f"{self.layer}: {name}={value} of weights; permitted {permitted}")


@dataclass(frozen=True)
class Provenance:
    """Where a quantized network comes from: for reports only, nothing computes with it.

    ``weights`` has the layers in their order, but those whose weights are all alike.
    """

    model: str
    model_sha256: str
    hwquant: str
    method: str
    exponent: float
    act_exponent: float
    weight_bits: int
    act_bits: int
    edge_bits: int
    accumulate: str
    product_bits: int
    activation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seconds: float
    layout: str
    rounding: str
    ranges: str
    equalize: bool
    search: str
    levels: str
    norm: float
    weights: tuple[WeightStatistics, ...]
    extra_macs: float = 0.0

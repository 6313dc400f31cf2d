"""How to quantize: the choices that a user has."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hwquant.errors import BadInput
from hwquant.exponent import HIGHEST, LOWEST, Search
from hwquant.ir import FloatArray
from hwquant.power import Method
from hwquant.ranges import Ranges
from hwquant.rounding import Rounding

Accumulate = Literal["product", "levels"]


@dataclass(frozen=True)
class QuantConfig:
    """How to quantize; ``exponent`` and ``accumulate`` ``None`` mean: choose.

    ``search`` is the error that chosen exponents make least: that of the ``weights`` alone, as in
    the paper (its Lp norm, p = ``norm``), the noise of ``both`` operands, or that of each, with
    ``separate`` exponents. ``rounding`` is how weights become codes (`hwquant.rounding`),
    ``ranges`` how tensors get theirs (`hwquant.ranges`); ``equalize`` scales channels between
    layers first (`hwquant.equalize`).

    The network's input is ``(x - mean) / std`` of the sensor's integers x, ``mean`` and ``std`` one
    number or one per channel.

    Raises
    ------
    BadInput
        If a field is out of its range; the message has the range.
    """

    weight_bits: int = 4
    act_bits: int = 4
    edge_bits: int = 8
    method: Method = "power"
    exponent: float | None = None
    search: Search = "both"
    accumulate: Accumulate | None = None
    product_bits: int = 7
    activation: Literal["thresholds", "table"] = "thresholds"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    input_bits: int = 8
    input_signed: bool = False
    bias_correction: bool = True
    rounding: Rounding = "second_order"
    ranges: Ranges = "reach"
    equalize: bool = False
    norm: float = 2.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("weight_bits", 2, 8),
            ("act_bits", 2, 8),
            ("edge_bits", max(self.weight_bits, self.act_bits), 8),
            ("product_bits", 4, 16),
            ("input_bits", 1, 16),
        ):
            value = getattr(self, name)
            require(low <= value <= high, name, value, f"{low}..{high}")
        for name, choices in (
            ("method", ("power", "uniform", "log")),
            ("search", ("weights", "both", "separate")),
            ("rounding", ("nearest", "second_order", "squant")),
            ("ranges", ("reach", "omse")),
            ("accumulate", ("product", "levels", None)),
        ):
            value = getattr(self, name)
            require(value in choices, name, value, ", ".join(str(c or "auto") for c in choices))
        require(
            self.activation in ("thresholds", "table"),
            "activation",
            self.activation,
            "thresholds, table; pade and newton are not in this version",
        )
        if self.exponent is not None:
            ranged = LOWEST <= self.exponent <= HIGHEST
            require(ranged, "exponent", self.exponent, f"{LOWEST}..{HIGHEST}, or auto")
        require(self.norm >= 1, "norm", self.norm, "1..inf")
        is_read = self.norm == 2 or self.search == "weights"
        require(is_read, "norm", self.norm, "2, or any from 1 with search=weights")
        require(len(self.mean) > 0, "mean", self.mean, "one number, or one per channel")
        positive = len(self.std) > 0 and all(s > 0 for s in self.std)
        require(positive, "std", self.std, "positive, one number or one per channel")

    @property
    def lowest_pixel(self) -> int:
        """The sensor's smallest integer."""
        return -(2 ** (self.input_bits - 1)) if self.input_signed else 0

    def pixel_range(self, channels: int) -> tuple[FloatArray, FloatArray]:
        """Real value of the lowest and of the highest pixel, ``float[C]`` each.

        Raises
        ------
        BadInput
            If ``mean`` or ``std`` has neither one number nor one per channel.
        """
        for name in ("mean", "std"):
            count = len(getattr(self, name))
            require(count in (1, channels), name, f"{count} numbers", f"1 or {channels} of them")
        mean = np.broadcast_to(np.array(self.mean, dtype=np.float64), (channels,))
        std = np.broadcast_to(np.array(self.std, dtype=np.float64), (channels,))
        highest = self.lowest_pixel + 2**self.input_bits - 1
        return (self.lowest_pixel - mean) / std, (highest - mean) / std


def require(claim: bool, name: str, value: object, permitted: str) -> None:
    """Refuse a value, with what is permitted instead, unless the claim holds."""
    if not claim:
        raise BadInput(f"{name}={value}: permitted {permitted}")

"""How to quantize: the choices that a user has."""

from dataclasses import dataclass
from typing import Literal

from hwquant.errors import BadInput
from hwquant.exponent import HIGHEST, LOWEST, Search
from hwquant.power import Method
from hwquant.rounding import Rounding

Accumulate = Literal["product", "levels"]


@dataclass(frozen=True)
class QuantConfig:
    """How to quantize; ``exponent`` and ``accumulate`` ``None`` mean: choose.

    ``search`` is the error that chosen exponents make least: that of the ``weights`` alone, as in
    the paper, the noise of ``both`` operands, or that of each, with ``separate`` exponents.
    ``rounding`` is how weights become codes (`hwquant.rounding`).

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
            ("rounding", ("nearest", "second_order")),
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
        require(len(self.mean) > 0, "mean", self.mean, "one number, or one per channel")
        positive = len(self.std) > 0 and all(s > 0 for s in self.std)
        require(positive, "std", self.std, "positive, one number or one per channel")


def require(claim: bool, name: str, value: object, permitted: str) -> None:
    """Refuse a value, with what is permitted instead, unless the claim holds."""
    if not claim:
        raise BadInput(f"{name}={value}: permitted {permitted}")

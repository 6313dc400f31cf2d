"""How to quantize: the choices that a user has."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hwquant.activation import Kind
from hwquant.errors import BadInput
from hwquant.float_graph import FloatGraph
from hwquant.ir import INPUT, FloatArray, Pair
from hwquant.power import Method
from hwquant.quantizer.exponent import HIGHEST, LOWEST, Search
from hwquant.quantizer.ranges import Ranges
from hwquant.quantizer.rounding import Rounding

Accumulate = Literal["product", "levels"]
Levels = Literal["whole", "rounded"]

MAX_TABLE_BITS = 10  # weight_bits + act_bits of the largest product table chosen by default
PRODUCT_BITS = (4, 16)  # of a product, the least and the most
LEAST_CHOSEN = 7  # product bits by default; with 6, three bits a code lose accuracy

MAX_CODE_ERROR = 8  # codes that a unit may be wrong by
MAX_EXTRA_MACS = 3  # four passes over every layer in place of one


@dataclass(frozen=True)
class QuantConfig:
    """How to quantize; where a field may be ``None``, that means: choose.

    ``levels`` says what becomes integers where products come from a table of ``product_bits`` (by
    default as many as both operands have, and at least 7): ``whole`` levels, so that every product
    is exact, or, as in the paper, ``rounded`` products of real levels. Whole ones are chosen
    wherever they fit.

    ``search`` is the error that chosen exponents make least: that of the ``weights`` alone, as in
    the paper (its Lp norm, p = ``norm``), the noise of ``both`` operands, or that of each, with
    ``separate`` exponents. ``rounding`` is how weights become codes (`quantizer.rounding`),
    ``ranges`` how tensors get theirs (`quantizer.ranges`); ``equalize`` scales channels between
    layers first (`quantizer.equalize`). ``bias_correction`` gives quantized layers the means that
    they had in float, ``variance_correction`` their spread. ``activation`` is the unit that makes
    codes (`hwquant.activation`), which may be wrong by ``max_code_error`` codes.

    ``rescue`` gives second digits to tensors that lose too much with one, and layers get them while
    multiply-accumulates grow by ``extra_macs`` of all at most (`quantizer.budget`); with edges of
    one digit there are none.

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
    search: Search | None = None
    levels: Levels | None = None
    accumulate: Accumulate | None = None
    product_bits: int | None = None
    activation: Kind = "thresholds"
    max_code_error: int = 0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    input_bits: int = 8
    input_signed: bool = False
    bias_correction: bool = True
    variance_correction: bool = True
    rescue: bool = True
    rounding: Rounding = "second_order"
    ranges: Ranges = "reach"
    equalize: bool = False
    norm: float = 2.0
    extra_macs: float = 0.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("weight_bits", 2, 8),
            ("act_bits", 2, 8),
            ("edge_bits", max(self.weight_bits, self.act_bits), 8),
            ("max_code_error", 0, MAX_CODE_ERROR),
            ("input_bits", 1, 16),
            ("extra_macs", 0, MAX_EXTRA_MACS),
        ):
            value = getattr(self, name)
            require(low <= value <= high, name, value, f"{low}..{high}")
        alone = f"0 with edge_bits={self.edge_bits}, which one digit has"
        adds = self._has_second_digits or self.extra_macs == 0
        require(adds, "extra_macs", self.extra_macs, alone)
        low, high = PRODUCT_BITS
        if self.product_bits is not None:
            is_ranged = low <= self.product_bits <= high
            require(is_ranged, "product_bits", self.product_bits, f"{low}..{high}")
        for name, choices in (
            ("method", ("power", "uniform", "log")),
            ("search", ("weights", "both", "separate", None)),
            ("rounding", ("nearest", "second_order", "squant")),
            ("ranges", ("reach", "omse")),
            ("activation", ("thresholds", "table", "pade", "newton", "auto")),
            ("accumulate", ("product", "levels", None)),
            ("levels", ("whole", "rounded", None)),
        ):
            value = getattr(self, name)
            require(value in choices, name, value, ", ".join(str(c or "auto") for c in choices))
        if self.levels == "whole" and self.form == "product":
            least = (self.tops[0] * self.tops[1]).bit_length()
            allowed = f"{least}..{high} with levels=whole"
            require(self._fits_whole, "product_bits", self.product_width, allowed)
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
    def tops(self) -> Pair:
        """Largest digit of a weight's magnitude, and of an activation."""
        return 2 ** (self.weight_bits - 1) - 1, 2**self.act_bits - 1

    @property
    def form(self) -> Accumulate:
        """Where products come from: a table, or a multiplier of decoded levels."""
        few = self.weight_bits + self.act_bits <= MAX_TABLE_BITS
        return self.accumulate or ("product" if few else "levels")

    @property
    def product_width(self) -> int:
        """Bits of a product in the table."""
        chosen = min(max(self.weight_bits + self.act_bits, LEAST_CHOSEN), PRODUCT_BITS[1])
        return chosen if self.product_bits is None else self.product_bits

    @property
    def levels_used(self) -> Levels:
        """Whether the levels of this method's grid are whole numbers."""
        if self.method != "power":
            return "whole" if self.method == "uniform" else "rounded"
        is_whole = self.form == "product" and self._fits_whole and self.levels != "rounded"
        return "whole" if is_whole else "rounded"

    @property
    def _has_second_digits(self) -> bool:
        return self.edge_bits > min(self.weight_bits, self.act_bits)

    @property
    def _fits_whole(self) -> bool:
        return self.tops[0] * self.tops[1] < 2**self.product_width

    @property
    def search_used(self) -> Search:
        """Error that chosen exponents make least: whole levels have no use for one exponent."""
        return self.search or ("separate" if self.levels_used == "whole" else "both")

    @property
    def lowest_pixel(self) -> int:
        """The sensor's smallest integer."""
        return -(2 ** (self.input_bits - 1)) if self.input_signed else 0

    def pixel_range(self, graph: FloatGraph) -> tuple[FloatArray, FloatArray]:
        """Real value of the lowest and of the highest pixel, ``float[C]`` each.

        Raises
        ------
        BadInput
            If ``mean`` or ``std`` has neither one number nor one per channel; if the network takes
            integers as they are, and the sensor's are others or normalized before.
        """
        kind, channels = graph.integers, graph.shapes[INPUT][0]
        taken = (("input_bits", 8), ("input_signed", kind == "int8"), ("mean", 0), ("std", 1))
        for name, wanted in taken if kind else ():
            given = getattr(self, name)
            fits = bool(np.all(np.array(given) == wanted))
            require(fits, name, given, f"{wanted}, for the network takes {kind} as it is")
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

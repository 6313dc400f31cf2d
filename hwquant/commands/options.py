"""Options that several verbs take."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from hwquant import packaged
from hwquant.activation import Kind
from hwquant.power import Method
from hwquant.quantizer.config import Accumulate, Levels, QuantConfig
from hwquant.quantizer.exponent import Search
from hwquant.quantizer.ranges import Ranges
from hwquant.quantizer.rounding import Rounding

P = ParamSpec("P")
R = TypeVar("R")
Command = Callable[..., Any]


def _numbers(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """Parse finite numbers with commas between them."""
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} are not numbers with commas between them") from None
    if not all(math.isfinite(number) for number in numbers):
        raise click.BadParameter(f"{value!r} are not all finite")
    return numbers


def _sizes(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """Parse positive integers with commas between them."""
    if value is None:
        return None
    parts = value.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"{value!r} are not positive integers with commas between them")
    return tuple(int(part) for part in parts)


def _exponent(_ctx: click.Context, _param: click.Parameter, value: str) -> float | None:
    """Parse ``auto`` (``None``) or a number."""
    if value == "auto":
        return None
    try:
        return float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither auto nor a number") from None


@dataclass(frozen=True)
class QuantOptions:
    """What the command line says about quantization; ``None``: nothing."""

    bits: int | None
    weight_bits: int | None
    act_bits: int | None
    edge_bits: int
    method: Method
    exponent: float | None
    search: Search | None
    levels: Levels | None
    rounding: Rounding
    ranges: Ranges
    equalize: bool
    extra_macs: float
    accumulate: Accumulate | None
    product_bits: int | None
    activation: Kind
    max_code_error: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    input_bits: int
    input_signed: bool
    input_shape: tuple[int, ...] | None
    until: str | None

    def config(self, model: Path | None) -> QuantConfig:
        """Return the configuration for ``model``, or for the network that ships."""
        mean, std = ((0.0,), (1.0,)) if model else packaged.normalisation()
        default = QuantConfig()
        return QuantConfig(
            weight_bits=_first_given(self.weight_bits, self.bits, default=default.weight_bits),
            act_bits=_first_given(self.act_bits, self.bits, default=default.act_bits),
            edge_bits=self.edge_bits,
            method=self.method,
            exponent=self.exponent,
            search=self.search,
            levels=self.levels,
            rounding=self.rounding,
            ranges=self.ranges,
            equalize=self.equalize,
            extra_macs=self.extra_macs,
            accumulate=self.accumulate,
            product_bits=self.product_bits,
            activation=self.activation,
            max_code_error=self.max_code_error,
            mean=mean if self.mean is None else self.mean,
            std=std if self.std is None else self.std,
            input_bits=self.input_bits,
            input_signed=self.input_signed,
        )


def _first_given(*values: int | None, default: int) -> int:
    return next((value for value in values if value is not None), default)


_QUANT = (
    click.option("--bits", type=int, metavar="B", help="Bits of weights and activations [4]."),
    click.option("--weight-bits", type=int, metavar="B", help="Bits of weights; before --bits."),
    click.option("--act-bits", type=int, metavar="B", help="Bits of activations; before --bits."),
    click.option(
        "--edge-bits",
        type=int,
        metavar="B",
        default=8,
        show_default=True,
        help="Bits of the first and the last layer.",
    ),
    click.option(
        "--method",
        type=click.Choice(["power", "uniform", "log"]),
        default="power",
        show_default=True,
        help="Grid of the codes.",
    ),
    click.option(
        "--exponent",
        callback=_exponent,
        metavar="auto|A",
        default="auto",
        show_default=True,
        help="Exponent of the power grid.",
    ),
    click.option(
        "--search",
        type=click.Choice(["weights", "both", "separate"]),
        help="Error that auto exponents make least: the weights', as in the paper, both operands', "
        "or each operand's with an exponent of its own [separate with whole levels, else both].",
    ),
    click.option(
        "--levels",
        type=click.Choice(["whole", "rounded"]),
        help="Whole levels, whose products are exact, or the paper's, whose products are rounded "
        "[whole where they fit].",
    ),
    click.option(
        "--rounding",
        type=click.Choice(["nearest", "second_order", "squant"]),
        default="second_order",
        show_default=True,
        help="Weights to codes: each to the nearest, by the inputs' covariance, or so that errors "
        "cancel.",
    ),
    click.option(
        "--ranges",
        type=click.Choice(["reach", "omse"]),
        default="reach",
        show_default=True,
        help="Ranges of activations: by standard deviations, or by least error.",
    ),
    click.option(
        "--equalize",
        is_flag=True,
        help="Scale channels between layers first, so that kernels' ranges match.",
    ),
    click.option(
        "--extra-macs",
        type=float,
        metavar="SHARE",
        default=0.0,
        show_default=True,
        help="MACs to add, as a share of all, for second digits where one loses most.",
    ),
    click.option(
        "--accumulate",
        type=click.Choice(["product", "levels"]),
        help="One table of products, or decode and multiply [by the table's size].",
    ),
    click.option(
        "--product-bits",
        type=int,
        metavar="P",
        help="Bits of a product in the table [as many as both operands have].",
    ),
    click.option(
        "--activation",
        type=click.Choice(["thresholds", "table", "pade", "newton", "auto"]),
        default="thresholds",
        show_default=True,
        help="Power-activation unit; auto takes the smallest of the others.",
    ),
    click.option(
        "--max-code-error",
        type=int,
        metavar="N",
        default=0,
        show_default=True,
        help="Codes that the unit may be wrong by.",
    ),
    click.option(
        "--mean",
        callback=_numbers,
        metavar="M1,M2,…",
        help="Input = (x - mean) / std, x the sensor's integers; one, or one a channel [0].",
    ),
    click.option("--std", callback=_numbers, metavar="S1,S2,…", help="See --mean [1]."),
    click.option(
        "--input-bits",
        type=int,
        metavar="B",
        default=8,
        show_default=True,
        help="Bits of the sensor's integers.",
    ),
    click.option("--input-signed", is_flag=True, help="The sensor's integers are signed."),
    click.option(
        "--input-shape",
        callback=_sizes,
        metavar="N1,N2,…",
        help="Sizes of the input's dimensions but the batch, where MODEL leaves them open.",
    ),
    click.option(
        "--until",
        metavar="NAME",
        help="Node or tensor of MODEL that the network is to end at.",
    ),
)


def quant_options(command: Callable[Concatenate[QuantOptions, P], R]) -> Command:
    """Give a command the options of quantization, as its first argument."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        fields = QuantOptions.__dataclass_fields__
        given: dict[str, Any] = {name: kwargs.pop(name) for name in fields}
        return command(QuantOptions(**given), *args, **kwargs)

    decorated: Command = wrapper
    for option in reversed(_QUANT):
        decorated = option(decorated)
    return decorated


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
model_argument = click.argument(
    "model", metavar="[MODEL.onnx]", required=False, type=click.Path(path_type=Path)
)
directory_argument = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="X.npz",
    help="Images: x (N,H,W,C or N,F integers), labels y, layout NHWC or NCHW.",
)
limit_option = click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Take the first N images."
)

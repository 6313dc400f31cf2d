"""How parallel: the plan, and what one layer costs on it.

The numbers that a network computes never depend on the plan. Every delay of the gateware is
named here once; the gateware builds its control from these constants and ``sim/`` checks that the
simulated cycles equal the plan's.
"""

from dataclasses import dataclass, replace
from math import gcd
from typing import Literal, assert_never

from hwquant.errors import BadInput
from hwquant.fpga.block_products import BlockForm, block_form
from hwquant.fpga.devices import BLOCK_DEVICES, Block, find_device
from hwquant.ir import (
    Guess,
    MacLayer,
    PowerNewton,
    PowerPade,
    PowerTable,
    QuantGraph,
    Saturate,
    Staircase,
    Thresholds,
)

Weights = Literal["rom", "stream"]  # where the weights are
Products = Literal["lut", "dsp"]  # what the array's products are made in

MAX_ROWS = 64
MAX_COLS = 64
MAX_STREAM_BITS = 1024

WALK_DELAY = 1  # step -> its addresses at the memories
MEMORY_DELAY = 3  # address -> word at the array's input: read, register, choice of bank or padding
TAP_DELAY = 3  # a tap's address -> the address that finds what was pushed: read, register, write
RECODE_DELAY = 1  # codes to what products need of them
PRODUCT_DELAY = 1
CHAIN = 4  # columns whose products are added one after the other, before the tree of adders
ACCUMULATE_DELAY = 1
OPERAND_DELAY = 4  # turn -> parameters and residual codes at the lane: address, read, two registers
REQUANTIZE_DELAY = 5  # lane input -> value
GATE_DELAY = 3  # more where a network has gates
PARALLEL_THRESHOLDS = 6  # of a staircase, all compared at once; more are searched
PARALLEL_DELAY = 2  # value -> comparisons -> their number
SATURATE_DELAY = 2  # of a unit that guesses: below, then above
SEGMENT_DELAY = 1
SLOPE_DELAY = 2  # slope and offset -> rank: product, sum
READ_DELAY = 2  # guess -> rank, rank -> threshold
COMPARE_DELAY = 2  # rank and threshold -> next rank: comparison, sum
HORNER_DELAY = 2  # a coefficient of a polynomial: product, sum
MEAN_DELAY = 2  # of Newton's iteration: sum, division by the root
FETCH_CYCLES = 2  # layer number -> program fields -> first step
LOAD_DELAY = 2  # last input beat -> its word in memory
LINE_DELAY = 2  # a pixel is taken -> the pixels above it: the line buffer's read, register
WINDOW_DELAY = LINE_DELAY + 1  # a window's last pixel -> its first word at the memory
FIFO_DELAY = 2  # value -> output stream
POOL_DELAY = WALK_DELAY + MEMORY_DELAY + 1  # a max pool's last step of a window -> its word
WORD_DELAY = 1  # codes -> the word that they complete
RELEASE_DELAY = WALK_DELAY + MEMORY_DELAY - 1  # last step of a tile -> its words may be overwritten

# Of a DSP block that one row or two share: operands -> sum.
BLOCK_DELAY: dict[tuple[Block, int], int] = {
    **dict.fromkeys((("DSP48E1", 1), ("DSP48E1", 2)), 4),  # weights, their sum, product, sum
    ("SB_MAC16", 1): 4,  # operands, parts of the product, product, sum
    ("SB_MAC16", 2): 3,  # operands, products, sums
}
BLOCK_STEP: dict[Block, int] = {"DSP48E1": 1, "SB_MAC16": 2}  # a sum -> that of the next block


@dataclass(frozen=True)
class Plan:
    """Rows x columns of MACs and lanes of requantization.

    ``device`` is for estimates, and for the size of the LUTs that the array's products are cut for;
    it changes no number and, but for one with SPRAMs, no cycle. ``stream_bits`` are the bits of
    weights that arrive in a beat; ``None``: the weights of all layers lie in a ROM. ``products`` in
    DSP blocks need a device whose blocks hwquant knows; numbers are the same.

    Each is a power of two; ``lanes`` is at most ``rows`` and half of ``cols``.

    Raises
    ------
    BadInput
        Naming the field, its value and the permitted range.
    """

    rows: int
    cols: int
    lanes: int
    device: str | None = None
    stream_bits: int | None = None
    products: Products = "lut"

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("rows", self.rows, 1, MAX_ROWS),
            ("cols", self.cols, 2, MAX_COLS),
            ("lanes", self.lanes, 1, min(self.rows, self.cols // 2)),
            (
                "stream_bits",
                1 if self.stream_bits is None else self.stream_bits,
                1,
                MAX_STREAM_BITS,
            ),
        ):
            if not low <= value <= high or value & (value - 1):
                raise BadInput(f"{name}={value}: must be a power of two in {low}..{high}")
        if self.products == "dsp" and self.device not in BLOCK_DEVICES:
            given = "no device" if self.device is None else self.device
            raise BadInput(f"products=dsp on {given}: needs one of {', '.join(BLOCK_DEVICES)}")

    @property
    def macs_per_cycle(self) -> int:
        """Multiply-accumulates a cycle when every row and column is used."""
        return self.rows * self.cols

    @property
    def block(self) -> Block | None:
        """The DSP block in which products are made, if they are made in one."""
        if self.products == "lut" or self.device is None:
            return None
        return find_device(self.device).block

    @property
    def is_streamed(self) -> bool:
        """Whether weights arrive in a stream."""
        return self.stream_bits is not None

    @property
    def chunks(self) -> int:
        """Cycles in which the lanes drain the accumulators of all rows."""
        return self.rows // self.lanes


def log2_ceil(value: int) -> int:
    """Return the number of bits that address ``value`` things."""
    return (value - 1).bit_length()


def weight_digit_bits(plan: Plan, graph: QuantGraph) -> int:
    """Bits of a weight digit in memory: of its code or, for most DSP blocks, of its level."""
    blocks = blocks_of(plan, graph)
    return graph.weight_bits if blocks is None else blocks.weight_digit_bits


def blocks_of(plan: Plan, graph: QuantGraph) -> BlockForm | None:
    """Return how the array is made of DSP blocks; ``None`` if products are made in LUTs.

    Raises
    ------
    UnsupportedModel
        As `block_form` does.
    """
    if plan.block is None:
        return None
    return block_form(graph.arithmetic, plan.block, plan.rows, plan.cols)


def weight_word_bits(plan: Plan, graph: QuantGraph) -> int:
    """Bits of the weight digits that the array takes in a cycle."""
    return plan.macs_per_cycle * weight_digit_bits(plan, graph)


def with_stream(plan: Plan, graph: QuantGraph, bits: int | None) -> Plan:
    """Return the plan with streamed weights: ``bits`` a beat or, if ``None``, 64 or what fits."""
    found = gcd(64, weight_word_bits(plan, graph)) if bits is None else bits
    return replace(plan, stream_bits=found)


def array_delay(plan: Plan, graph: QuantGraph) -> int:
    """Cycles from a beat at the array's input to the accumulators that include it."""
    blocks = blocks_of(plan, graph)
    if blocks is None:
        to_sum = PRODUCT_DELAY + adder_stages(plan.cols)
    else:
        to_sum = block_stages(blocks, plan.cols)
    return RECODE_DELAY + to_sum + ACCUMULATE_DELAY


def block_stages(form: BlockForm, cols: int) -> int:
    """Cycles from the levels of a row to their sum, in a chain of DSP blocks."""
    return (cols - 1) * BLOCK_STEP[form.block] + BLOCK_DELAY[form.block, form.rows]


def adder_stages(cols: int) -> int:
    """Cycles from the products of a row to their sum: those of a chain, then of a tree."""
    chain = min(CHAIN, cols)
    return chain - 1 + log2_ceil(cols // chain)


def lag(col: int, cols: int) -> int:
    """Cycles by which the digits of a column come later than those of the first."""
    return max(0, col % min(CHAIN, cols) - 1)


def tap_columns(cols: int) -> list[int]:
    """Columns in which rows may take a tap of their own channel, in the order of the taps.

    Those whose digits wait anyway, for the choice takes a cycle; the shortest wait first.
    """
    return sorted((col for col in range(cols) if lag(col, cols)), key=lambda col: lag(col, cols))


def activation_delay(activation: Staircase) -> int:
    """Cycles from a value to its code."""
    match activation:
        case Thresholds():
            return PARALLEL_DELAY if is_parallel(activation) else 1 + comparators(activation)
        case PowerTable() | PowerPade() | PowerNewton():
            window = activation.window
            search = window.stages * (READ_DELAY + COMPARE_DELAY)
            return SATURATE_DELAY + rank_delay(activation) + search
        case Saturate():
            return 1
        case _:
            assert_never(activation)


def is_parallel(staircase: Thresholds) -> bool:
    """Whether a value is compared with all thresholds at once."""
    return len(staircase.thresholds) <= PARALLEL_THRESHOLDS


def comparators(staircase: Thresholds) -> int:
    """Return how many comparators a staircase has: one a threshold, or a stage of the search."""
    count = len(staircase.thresholds)
    return count if is_parallel(staircase) else log2_ceil(count + 1)


def guess_delay(activation: Guess) -> int:
    """Cycles from a saturated value to its guess."""
    match activation:
        case PowerTable():
            return SEGMENT_DELAY
        case PowerPade():
            terms = max(len(activation.numerator), len(activation.denominator))
            return HORNER_DELAY * (terms - 1) + activation.quotient_bits
        case PowerNewton():
            return (
                activation.power
                - 1
                + MEAN_DELAY
                + (activation.iterations - 1)
                * (activation.root - 2 + newton_quotient_bits(activation) + MEAN_DELAY)
            )
        case _:
            assert_never(activation)


def rank_delay(activation: Guess) -> int:
    """Cycles from a saturated value to the rank at which its comparisons begin."""
    has_slopes = isinstance(activation, PowerTable) and activation.slopes is not None
    return guess_delay(activation) + READ_DELAY + (SLOPE_DELAY if has_slopes else 0)


def newton_quotient_bits(record: PowerNewton) -> int:
    """Bits of ``X // y**(root - 1)``: y is at least the root rounded down.

    With r that root, ``X < (r + 1)**root``: below 2**root where r is 1, and else less than twice
    the largest root.
    """
    return max(record.guess_bits + 1, record.root)


def lane_delay(graph: QuantGraph) -> int:
    """Cycles from a value to its code in the slowest activation of the network."""
    layers = (layer for layer in graph.layers if isinstance(layer, MacLayer))
    return max((activation_delay(la.activation) for la in layers if la.activation), default=1)


def requantize_delay(graph: QuantGraph) -> int:
    """Cycles from a lane's input to its value."""
    has_gates = any(isinstance(layer, MacLayer) and layer.gate for layer in graph.layers)
    return REQUANTIZE_DELAY + (GATE_DELAY if has_gates else 0)


def drain_delay(plan: Plan, graph: QuantGraph) -> int:
    """Cycles from a sum's last step to its accumulators at the drain."""
    return WALK_DELAY + MEMORY_DELAY + array_delay(plan, graph)


def code_delay(graph: QuantGraph) -> int:
    """Cycles from a turn of the drain to its codes."""
    return OPERAND_DELAY + requantize_delay(graph) + lane_delay(graph)


def output_flush(plan: Plan, graph: QuantGraph, tail: int) -> int:
    """Cycles from the last layer's last step to its last output beat, both included.

    ``tail`` drains its last sum.
    """
    value = drain_delay(plan, graph) + tail + OPERAND_DELAY + requantize_delay(graph)
    return value + FIFO_DELAY


def output_depth(plan: Plan, graph: QuantGraph, pace: int) -> int:
    """Beats that an output buffer must hold so that an output that never stalls costs no cycle.

    ``pace`` is the last layer's least cycles a sum.
    """
    in_flight = drain_delay(plan, graph) + OPERAND_DELAY + requantize_delay(graph) + FIFO_DELAY + 4
    return 1 << log2_ceil(in_flight + pace + 2 * plan.chunks)

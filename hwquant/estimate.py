"""How many cells a plan takes, before anything is synthesized, and whether it fits a device.

Block RAMs and DSP blocks are counted (`hwquant.estimate_blocks`). LUTs are a sum of structural
terms (table bits, adder bits, multiplexer bits), each with a cost that was fitted to synthesized
designs; flip-flops likewise. ``docs/reports.md`` has the designs and the error.
"""

from dataclasses import dataclass, fields, replace

from hwquant.activation.cost import logic_cost
from hwquant.estimate_blocks import (
    acc_bits,
    count_dsps,
    decoder_half_brams,
    factor_bits,
    lane_multipliers,
    memories,
    pixel_bits,
)
from hwquant.fpga.block_products import (
    BlockForm,
    act_level_bits,
    is_decoded_in_memory,
    weight_level_bits,
)
from hwquant.fpga.block_ram import LUTS_OF_1000_ROM_BITS, place_memory
from hwquant.fpga.devices import Device, Family, find_device
from hwquant.gateware import power_activation as units
from hwquant.ir import LevelTables, MacLayer, ProductTable, QuantGraph, Thresholds
from hwquant.scheduler.plan import (
    BLOCK_STEP,
    CHAIN,
    RECODE_DELAY,
    Plan,
    block_stages,
    blocks_of,
    comparators,
    is_parallel,
    lag,
    log2_ceil,
    weight_word_bits,
)
from hwquant.scheduler.program import Schedule

LUT_PERCENT = 85  # of a device's LUTs that a plan may use: place and route needs the rest


@dataclass(frozen=True)
class Estimate:
    """Cells of a plan on a device; ``shortages`` say what the device lacks."""

    device: str
    luts: int
    ffs: int
    brams: int
    dsps: int
    sprams: int
    shortages: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether nothing is short."""
        return not self.shortages


def estimate(graph: QuantGraph, program: Schedule, device: str) -> Estimate:
    """Estimate the cells of a scheduled network.

    Error
    -----
    Block RAMs: an upper bound, since yosys drops those that hold one value. LUTs and flip-flops:
    see ``docs/reports.md``.
    """
    target = find_device(device)
    parts = memories(graph, program)
    placed = [place_memory(target, memory) for memory in parts]
    half_brams = sum(cells.half_brams for cells in placed)
    half_brams += decoder_half_brams(graph, program.plan, target)
    terms = count_terms(graph, program, target)
    is_mac16 = program.plan.block == "SB_MAC16"
    luts = _cost(terms, _MAC16 if is_mac16 else _LUTS[target.family])
    ffs = _ffs(graph, program, terms, target.lut_inputs)
    if target.family == "ecp5":  # the registers that `output_registers` moves into blocks
        ffs -= sum(part.bits for part, cells in zip(parts, placed, strict=True) if cells.half_brams)
        ffs -= sum(a + b for a, b in lane_multipliers(graph)) * program.plan.lanes
    return _judged(
        device,
        target,
        round(luts) + sum(cells.luts for cells in placed),
        round(ffs),
        -(-half_brams // 2),
        count_dsps(graph, program.plan, target),
        sum(cells.sprams for cells in placed),
    )


def _judged(
    device: str, target: Device, luts: int, ffs: int, brams: int, dsps: int, sprams: int
) -> Estimate:
    shortages = tuple(
        f"{need} {name} of {limit}"
        for name, need, limit in (
            ("LUTs", luts, target.luts * LUT_PERCENT // 100),
            ("flip-flops", ffs, target.ffs),
            ("block RAMs", brams, target.brams),
            ("DSP blocks", dsps, target.dsps),
            ("SPRAMs", sprams, target.sprams),
        )
        if need > limit
    )
    return Estimate(device, luts, ffs, brams, dsps, sprams, shortages)


@dataclass(frozen=True)
class Terms:
    """What LUTs are spent on, in bits; a table of n inputs counts ``2**(n - inputs of a LUT)``."""

    product_bits: int  # of the products' tables, or of the decoders of weights' levels
    recoded_bits: int  # of what products need of activations, or of their levels
    multiplier_bits: int  # of multipliers that are not DSP blocks
    adder_bits: int  # of the adder trees and accumulators
    held_bits: int  # of the accumulators that wait for the lanes, and of those behind DSP blocks
    compare_bits: int  # of the staircases' comparators
    threshold_bits: int  # of the staircases' constants
    lane_bits: int  # of requantization: sums and shifts
    word_bits: int  # of a word of activation memory
    mux_bits: int  # of multiplexers: of taps, windows, shifts, memories deeper than a block RAM
    rom_bits: int  # of constant memories left to logic
    pixel_bits: int  # of the tables from pixel to code
    control: int  # one


def count_terms(graph: QuantGraph, program: Schedule, target: Device) -> Terms:
    """Count the terms of a scheduled network on the LUTs of ``target``."""
    plan, inputs = program.plan, target.lut_inputs
    macs = [layer for layer in graph.layers if isinstance(layer, MacLayer)]
    placed = [place_memory(target, memory) for memory in memories(graph, program)]
    compares, thresholds = _staircases(macs)
    shifts = len({layer.shift for layer in macs})
    sum_bits = max(layer.value_bits + layer.shift for layer in macs)
    value_bits = max(layer.value_bits for layer in macs)
    blocks = blocks_of(plan, graph)
    are_inferred = target.infers_blocks(are_named=blocks is not None)
    lane_products = sum(a * b for a, b in lane_multipliers(graph))
    source = graph.input
    code_bits = len(source.tables) * source.tensor.parts * graph.act_bits
    tables, recoded, array_multipliers = _products(graph, program, inputs)
    choices = _own_products(program) * graph.act_bits + _shifted_accumulators(macs, graph, plan)
    if program.input.ring:  # one word of a window after the other; 6 inputs choose among four
        others = (program.loading.cycles_per_beat - 1) * plan.cols * graph.act_bits
        choices += others // (3 if inputs == 6 else 1)
    return Terms(
        product_bits=tables,
        recoded_bits=recoded,
        multiplier_bits=0 if are_inferred else plan.lanes * lane_products + array_multipliers,
        adder_bits=0 if blocks else plan.rows * sum(_adders(graph, plan.cols)),
        held_bits=plan.rows * acc_bits(graph) * (2 if blocks else 1),
        compare_bits=plan.lanes * compares,
        threshold_bits=plan.lanes * thresholds,
        lane_bits=plan.lanes * (2 * sum_bits + (shifts - 1) * value_bits),
        word_bits=plan.cols * graph.act_bits,
        mux_bits=sum(cells.mux_bits for cells in placed) + choices,
        rom_bits=sum(cells.rom_bits for cells in placed),
        pixel_bits=program.loading.channels_per_beat * code_bits * _table(source.bits, inputs),
        control=1,
    )


def _shifted_accumulators(layers: list[MacLayer], graph: QuantGraph, plan: Plan) -> int:
    """Bits of accumulators that choose what has been shifted, in a LUT4 before their adder's."""
    digits = max(max(graph.digits(layer)) for layer in layers)
    return plan.rows * acc_bits(graph) if plan.block == "SB_MAC16" and digits > 1 else 0


def _table(address_bits: int, inputs: int) -> int:
    """LUTs of one output of a table, at most."""
    return 1 << max(0, address_bits - inputs)


def _products(graph: QuantGraph, program: Schedule, inputs: int) -> tuple[int, int, int]:
    """Return bits of products and of recoded digits and, for levels, of the array's multipliers."""
    plan, own = program.plan, _own_products(program)
    if (blocks := blocks_of(plan, graph)) is not None:
        levels = blocks.levels
        bits = 0 if is_decoded_in_memory(levels) else act_level_bits(levels)
        decoded = plan.cols * bits * _table(graph.act_bits, inputs)
        if blocks.decodes_weights:
            decoded += plan.macs_per_cycle * weight_level_bits(levels)
        return 0, decoded, 0
    columns = plan.cols - own // plan.rows
    tables, recoded = _product(graph, inputs)
    own_tables, own_recoded = _product_alone(graph, inputs)
    multipliers = 0
    if isinstance(graph.arithmetic, LevelTables):
        weight, act = factor_bits(graph.arithmetic)
        multipliers = plan.macs_per_cycle * weight * act
    return (
        plan.rows * columns * tables + own * own_tables,
        columns * recoded + own * own_recoded,
        multipliers,
    )


def _own_products(program: Schedule) -> int:
    """Count the products whose digit a row may choose for itself."""
    return program.plan.rows * program.taps if program.taps > 1 else 0


def _product(graph: QuantGraph, inputs: int) -> tuple[int, int]:
    """Return table bits of a product, and those that recode its digit."""
    wires, digit = graph.weight_bits - 1, _table(graph.act_bits, inputs)
    match graph.arithmetic:
        case ProductTable():
            tables = sum(_table(wires + bits, inputs) for bits in _recoded_bits(graph))
            return tables, _signals(graph, inputs) * digit
        case LevelTables():
            weight, act = factor_bits(graph.arithmetic)
            return weight * _table(wires, inputs), act * digit


def _product_alone(graph: QuantGraph, inputs: int) -> tuple[int, int]:
    """Do the same where no row shares the digit: recoded or not, as is smaller."""
    shared = _product(graph, inputs)
    if isinstance(graph.arithmetic, LevelTables):
        return shared
    whole = _table(graph.weight_bits - 1 + graph.act_bits, inputs)
    return min(shared, (len(_recoded_bits(graph)) * whole, 0), key=sum)


def _recoded_bits(graph: QuantGraph) -> list[int]:
    """Bits that tell apart the columns of each bit of a product table, or of the largest level."""
    match graph.arithmetic:
        case ProductTable(products):
            bits = range(int(products.max()).bit_length())
            columns = ((products >> bit & 1).T.tolist() for bit in bits)
            return [log2_ceil(len({tuple(column) for column in bit})) for bit in columns]
        case LevelTables():
            return [1] * factor_bits(graph.arithmetic)[1]


def _signals(graph: QuantGraph, inputs: int) -> int:
    """Functions of an activation that a column computes; a bit that is cut in two has its own."""
    room = inputs - graph.weight_bits + 1
    return sum(bits if bits <= room else 2 * bits - 2 for bits in _recoded_bits(graph))


def _adders(graph: QuantGraph, cols: int) -> list[int]:
    """Return the bits of one row's adders: the chains, the tree level by level, and the rest."""
    largest = _largest_product(graph)
    most, chain = (1 << largest.bit_length()) + largest, min(CHAIN, cols)
    chains = [(at * most).bit_length() for at in range(2, chain + 1)] * (cols // chain)
    sums = [chain << level for level in range(1, log2_ceil(cols // chain) + 1)]
    tree = [cols // many * (many * most).bit_length() for many in sums]
    return [*chains, *tree, acc_bits(graph)]


def _largest_product(graph: QuantGraph) -> int:
    match graph.arithmetic:
        case ProductTable(products):
            return int(products.max())
        case LevelTables(weight_levels, act_levels):
            return int(weight_levels.max()) * int(act_levels.max())


def _staircases(layers: list[MacLayer]) -> tuple[int, int]:
    """Return comparator bits and constant bits of the distinct activations of one lane."""
    compares = thresholds = 0
    for records in units.activation_units(layers):
        most = 0
        for activation in records:
            match activation:
                case Thresholds(steps, _):
                    bits = (steps[-1] - steps[0] + 1).bit_length()
                    searched = comparators(activation) * bits
                    few = is_parallel(activation)
                    most = max(most, logic_cost(activation) // 2 if few else searched)
                    thresholds += len(steps) * bits
                case _:
                    most = max(most, logic_cost(activation) // 2)  # LUT4, two a comparator's bit
                    thresholds += sum(w * b for w, b in units.logic_tables([activation]))
        compares += most
    return compares, thresholds


@dataclass(frozen=True)
class Costs:
    """LUTs for one of each term."""

    product_bits: float
    recoded_bits: float
    multiplier_bits: float
    adder_bits: float
    held_bits: float
    compare_bits: float
    threshold_bits: float
    lane_bits: float
    word_bits: float
    mux_bits: float
    rom_bits: float
    pixel_bits: float
    control: float


# Fitted to the designs of docs/reports.md; those of single units (compare, threshold, lane) to the
# units alone. iCE40 takes the costs of ECP5, which has the same LUT4, but for multipliers and
# adders: an array of 16 x 16 takes 7 LUTs a MAC more there (docs/mac.md).
_ECP5 = Costs(
    product_bits=0.62,
    recoded_bits=0.8,
    multiplier_bits=1.0,
    adder_bits=1.99,
    held_bits=1.0,
    compare_bits=1.97,
    threshold_bits=0.095,
    lane_bits=1.48,
    word_bits=0.0,
    mux_bits=0.7,
    rom_bits=LUTS_OF_1000_ROM_BITS["ecp5"] / 1000,
    pixel_bits=1.0,
    control=1150,
)
_XC7 = Costs(
    product_bits=1.17,
    recoded_bits=0.7,
    multiplier_bits=1.0,
    adder_bits=0.65,
    held_bits=1.0,
    compare_bits=0.80,
    threshold_bits=0.043,
    lane_bits=0.86,
    word_bits=7.0,
    mux_bits=1.16,
    rom_bits=LUTS_OF_1000_ROM_BITS["xc7"] / 1000,
    pixel_bits=1.0,
    control=770,
)
_LUTS: dict[Family, Costs] = {
    "ecp5": _ECP5,
    "ice40": replace(_ECP5, multiplier_bits=2.1, adder_bits=2.64),
    "xc7": _XC7,
    "gowin": _ECP5,  # an ALU is a bit of a CCU2C, and the rest is the same LUT4
}
# Fitted to the designs of docs/mac.md: small arrays, and multipliers of `multiply` for the lanes.
_MAC16 = replace(_LUTS["ice40"], multiplier_bits=1.0, control=900)


def _cost(terms: Terms, costs: Costs) -> float:
    return sum(getattr(terms, term.name) * getattr(costs, term.name) for term in fields(Terms))


def _ffs(graph: QuantGraph, program: Schedule, terms: Terms, inputs: int) -> float:
    """Count the registers of the array; those of lanes and control are fitted."""
    plan = program.plan
    macs = [layer for layer in graph.layers if isinstance(layer, MacLayer)]
    lanes = terms.held_bits + terms.lane_bits + 3.6 * terms.compare_bits
    lanes += plan.lanes * units.guess_registers(macs)
    gathered = weight_word_bits(plan, graph) - plan.stream_bits if plan.stream_bits else 0
    rows, columns = program.loading.kernel
    window = rows * columns * pixel_bits(graph)
    control = 640 if plan.block == "SB_MAC16" else 390  # with the parts of the lanes' products
    blocks = blocks_of(plan, graph)
    if blocks is None:
        array = _lut_registers(graph, program, inputs)
    else:
        array = _block_registers(plan, blocks)
    return array + lanes + gathered + window + control


def _block_registers(plan: Plan, blocks: BlockForm) -> int:
    """Count what waits for its block, and activations' levels where no memory holds them."""
    levels = blocks.levels
    waits = plan.cols * (plan.cols - 1) // 2 * BLOCK_STEP[blocks.block]  # cycles, of all columns
    decoded = 0 if is_decoded_in_memory(levels) else plan.cols
    weights = plan.rows * weight_level_bits(levels) * (plan.cols + waits)
    flags = 4 * (RECODE_DELAY + block_stages(blocks, plan.cols))
    return weights + act_level_bits(levels) * (decoded + waits) + flags


def _lut_registers(graph: QuantGraph, program: Schedule, inputs: int) -> float:
    plan, wires = program.plan, graph.weight_bits - 1
    tables = sum(min(2, _table(wires + bits, inputs)) for bits in _recoded_bits(graph))
    if isinstance(graph.arithmetic, LevelTables):
        tables = _largest_product(graph).bit_length()
    wait = sum(lag(col, plan.cols) for col in range(plan.cols)) / plan.cols
    digit = graph.weight_bits * (2 + wait)  # what waits while activations are recoded, and later
    row = plan.cols * (digit + tables + 2) + sum(_adders(graph, plan.cols))
    column = _signals(graph, inputs) * (2 + wait)
    recoded = max(graph.act_bits, _product_alone(graph, inputs)[1])
    own = _own_products(program) * (graph.act_bits + recoded)
    return plan.rows * row + plan.cols * column + own

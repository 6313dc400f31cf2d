"""Block RAMs and DSP blocks of a plan: they follow from shapes, as yosys divides them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from hwquant.fpga.block_products import act_level_bits, is_decoded_in_memory
from hwquant.fpga.block_ram import Memory, parts_of, place_memory
from hwquant.fpga.devices import Device, Family, has_sprams
from hwquant.gateware import power_activation as units
from hwquant.gateware.multiply import limbs
from hwquant.gateware.operand import level_bits, operand_forms
from hwquant.gateware.requantize import LaneParameters
from hwquant.ir import Activation, LevelTables, MacLayer, QuantGraph
from hwquant.scheduler.plan import Plan, blocks_of, output_depth, weight_word_bits
from hwquant.scheduler.program import Schedule


def memories(graph: QuantGraph, program: Schedule) -> tuple[Memory, ...]:
    """Return the parts of weights, activations, lane parameters, taps and lines, the others whole.

    Those are the output buffer and the units' large tables.
    """
    plan = program.plan
    macs = [layer for layer in graph.layers if isinstance(layer, MacLayer)]
    chunks = sum(step.chunks for step in program.layers)
    word_bits = plan.cols * graph.act_bits
    buffer = output_depth(plan, graph, program.layers[-1].pace)
    words_before = Memory((program.taps - 1) * word_bits, 1 << sum(program.tap_bits), rom=False)
    whole = (
        *(Memory(word_bits, words, False, has_sprams(plan.device)) for words in program.bank_words),
        Memory(LaneParameters(graph).size * plan.lanes, chunks, rom=True),
    )
    loading = program.loading
    lines_above = Memory((loading.kernel[0] - 1) * pixel_bits(graph), loading.positions, rom=False)
    whole = (*whole, words_before) if program.taps > 1 else whole
    whole = (*whole, lines_above) if loading.kernel[0] > 1 else whole
    parts = [replace(w, words=words) for w in whole for _, words in parts_of(w.words)]
    tables = [
        Memory(bits, words, rom=True, in_blocks=True) for words, bits in units.memory_tables(macs)
    ]
    return (
        *weight_memory(graph, plan, program.weight_depth),
        *parts,
        Memory(macs[-1].value_bits * plan.lanes, buffer, rom=False),
        *tables * plan.lanes,
    )


def weight_memory(graph: QuantGraph, plan: Plan, words: int) -> list[Memory]:
    """Return the parts of a memory of ``words`` words of weights."""
    bits, is_rom = weight_word_bits(plan, graph), not plan.is_streamed
    return [Memory(bits, part, is_rom) for _, part in parts_of(words)]


def pixel_bits(graph: QuantGraph) -> int:
    """Return the bits of the codes of a pixel of the input."""
    tensor = graph.input.tensor
    return tensor.channels * tensor.parts * graph.act_bits


def count_dsps(graph: QuantGraph, plan: Plan, target: Device) -> int:
    """Count the blocks of multipliers, of lanes and of an array of levels, and of the array."""
    halves, blocks = 0, blocks_of(plan, graph)
    if target.infers_blocks(are_named=blocks is not None):
        macs = [layer for layer in graph.layers if isinstance(layer, MacLayer)]
        lane = sum(_halves(target.family, a, b) for a, b in lane_multipliers(graph))
        lane += sum(_unit_halves(unit, target.family) for unit in units.activation_units(macs))
        halves = plan.lanes * lane
        if blocks is None and isinstance(graph.arithmetic, LevelTables):
            factors = factor_bits(graph.arithmetic)
            halves += plan.macs_per_cycle * _halves(target.family, *factors)
    if blocks is not None:
        halves += 2 * plan.macs_per_cycle // blocks.rows
    return -(-halves // 2)


def decoder_half_brams(graph: QuantGraph, plan: Plan, target: Device) -> int:
    """Count the halves of block RAMs in which activations of an array in DSP blocks are decoded."""
    blocks = blocks_of(plan, graph)
    if blocks is None or not is_decoded_in_memory(blocks.levels):
        return 0
    levels = blocks.levels
    table = Memory(act_level_bits(levels), len(levels.act_levels), rom=True, in_blocks=True)
    columns = 2 if target.family == "xc7" else 1  # that read one block RAM
    return place_memory(target, table).half_brams * plan.cols // columns


def unit_dsps(records: Sequence[Activation], family: Family) -> int:
    """Return the DSP blocks of an activation unit."""
    return -(-_unit_halves(records, family) // 2)


def _unit_halves(records: Sequence[Activation], family: Family) -> int:
    """Count halves of DSP blocks; those of xc7 are signed, so unsigned factors take a bit."""
    total = 0
    for a, b, is_signed in units.multipliers(records):
        extra = family == "xc7" and not is_signed
        total += _halves(family, a + extra, b + extra)
    return total


@dataclass(frozen=True)
class _Blocks:
    """Factors of one DSP block, and how yosys cuts wider ones: parts of ``step`` bits, the rest."""

    wide: int
    narrow: int
    step: int
    least: int  # bits of a product; smaller ones become logic
    thinnest: int = 2  # bits of a factor; with thinner ones too
    half: int = 0  # bits of both factors of half a block


_BLOCKS: dict[Family, _Blocks] = {
    "xc7": _Blocks(25, 18, 17, 9),
    "ecp5": _Blocks(18, 18, 18, 0),
    "ice40": _Blocks(16, 16, 16, 11),
    "gowin": _Blocks(18, 18, 18, 0, thinnest=4, half=9),
}


def _halves(family: Family, a: int, b: int) -> int:
    """Halves of DSP blocks of a product of unsigned or sign-extended operands of so many bits."""
    blocks = _BLOCKS[family]
    above = _slices(max(a, b), blocks.wide, blocks.step)
    below = _slices(min(a, b), blocks.narrow, blocks.step)
    return sum(
        2 - (max(part) <= blocks.half)
        for part in product(above, below)
        if min(part) >= blocks.thinnest and sum(part) >= blocks.least
    )


def _slices(bits: int, most: int, step: int) -> list[int]:
    count = max(0, -(-(bits - most) // step))
    return [step] * count + [bits - count * step]


def lane_multipliers(graph: QuantGraph) -> list[tuple[int, int]]:
    """Return the operands' bits of one lane's multipliers: accumulator, skip level, gate."""
    parameters = LaneParameters(graph)
    products: list[tuple[int, int]] = []
    macs = [layer for layer in graph.layers if isinstance(layer, MacLayer)]
    if any(layer.residual for layer in macs):
        skip_bits = level_bits(graph, operand_forms(graph, gates=False))
        products.append((skip_bits, parameters["residual"].width))
    gated_bits = [layer.gate.gated_bits for layer in macs if layer.gate]
    widest = max(acc_bits(graph), *gated_bits, 0)
    if gated_bits:
        products += _in_limbs(widest, level_bits(graph, operand_forms(graph, residuals=False)))
    return products + _in_limbs(widest, parameters["multiplier"].width)


def _in_limbs(signed_bits: int, bits: int) -> list[tuple[int, int]]:
    """Return the operands' bits of a product that is cut in limbs: the highest is signed."""
    parts = limbs(signed_bits)
    return [(part.stop - part.start, bits + (part is parts[-1])) for part in parts]


def acc_bits(graph: QuantGraph) -> int:
    """Return the width of the widest accumulator."""
    return max(layer.acc_bits for layer in graph.layers if isinstance(layer, MacLayer))


def factor_bits(tables: LevelTables) -> tuple[int, int]:
    """Return the widths of decoded levels, of a weight and of an activation."""
    return (
        int(tables.weight_levels.max()).bit_length(),
        int(tables.act_levels.max()).bit_length(),
    )

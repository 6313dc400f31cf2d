"""What a frame costs, split by what the work is for: arithmetic effort, and cycles.

Arithmetic computation effort (ACE) counts a multiply-accumulate of i and j bits as i · j, whatever
hardware does it: the cells of a multiplier array. By the same measure a comparison of b bits counts
b · 1, and a shift of b bits by an amount of n bits b · n. Look-ups multiply nothing and count 0.

Source
------
Zhang et al. 2022 (PokeBNN), by which PowerQuant's table 5 measures; its table 18 for the split.
Differs: comparisons and shifts count, since the power activation here consists of them.
"""

from dataclasses import dataclass, fields
from typing import assert_never

from hwquant.activation.cost import factors, logic_cost
from hwquant.ir import (
    ConcatLayer,
    EmbeddingLayer,
    LayerNormLayer,
    MacLayer,
    MatMulLayer,
    MaxPoolLayer,
    PowerNewton,
    PowerPade,
    PowerTable,
    QuantGraph,
    Saturate,
    SoftmaxLayer,
    Staircase,
    Tensor,
    Thresholds,
    passes,
)
from hwquant.scheduler import plan as timing
from hwquant.scheduler.plan import Plan
from hwquant.scheduler.program import LayerProgram, Schedule
from hwquant.scheduler.schedule import pixel_digits


@dataclass(frozen=True)
class Shares:
    """A cost by component: what takes it adds up to ``total``.

    ``macs``: the array. ``requantize``: multipliers of the lanes, residuals and gates with them.
    ``activation``: the power activation units. ``pool``: max pools. ``other``: loading the frame,
    fetching programs, moving words, waiting for streamed weights or rows of the input.
    """

    macs: int = 0
    requantize: int = 0
    activation: int = 0
    pool: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """The whole cost."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class LayerEffort:
    """One step of a frame: its ACE, and the cycles that each component adds to the frame.

    What lanes do while the array sums, be it for the next layer, adds no cycle: theirs are the
    cycles in which it waits for them.
    """

    name: str
    ace: Shares
    cycles: Shares


def measure(graph: QuantGraph, program: Schedule) -> tuple[LayerEffort, ...]:
    """Split the cost of every step of a frame, ``load`` first, then all layers of ``graph``."""
    steps = {step.name: step for step in program.layers}
    load = LayerEffort("load", Shares(), Shares(other=program.loading.cycles))
    made = [load]
    for layer in graph.layers:
        match layer:
            case MacLayer():
                step = steps[layer.name]
                ace = mac_ace(graph, layer, step.macs)
                made.append(LayerEffort(layer.name, ace, _mac_cycles(graph, program.plan, step)))
            case MaxPoolLayer():
                ace = Shares(pool=_pool_ace(graph, layer))
                cycles = Shares(pool=steps[layer.name].cycles)
                made.append(LayerEffort(layer.name, ace, cycles))
            case ConcatLayer():
                made.append(LayerEffort(layer.name, Shares(), Shares()))
            case EmbeddingLayer() | LayerNormLayer() | MatMulLayer() | SoftmaxLayer():
                raise AssertionError(f"{layer.name}: attention; the schedule refuses it")
            case _:
                assert_never(layer)
    return tuple(made)


def mac_ace(graph: QuantGraph, layer: MacLayer, macs: int) -> Shares:
    """Return the ACE of a layer of ``macs`` multiply-accumulates, all digits of its operands."""
    products = passes(layer.source, layer.groups, graph.digits(layer))
    products *= pixel_digits(graph, layer.source)
    values = layer.output.channels * layer.output.height * layer.output.width
    sums, scaled = layer.acc_bits, 0
    if layer.gate is not None:
        gate = _skip_bits(graph, graph.tensor(layer.gate.source))
        sums, scaled = layer.gate.gated_bits, layer.acc_bits * gate
    scaled += sums * int(layer.multiplier.max()).bit_length()
    if layer.residual is not None:
        skip = _skip_bits(graph, graph.tensor(layer.residual.source))
        scaled += skip * int(layer.residual.multiplier.max()).bit_length()
    return Shares(
        macs=macs * products * graph.weight_bits * graph.act_bits,
        requantize=values * scaled,
        activation=values * activation_ace(layer.activation, layer.value_bits),
    )


def activation_ace(activation: Staircase | None, value_bits: int) -> int:
    """Return the ACE of one code from a value of ``value_bits``."""
    match activation:
        case None:
            return 0
        case Thresholds():
            return value_bits * timing.comparators(activation)
        case PowerTable() | PowerPade() | PowerNewton():
            products = sum(a * b for a, b in factors(activation))
            return logic_cost(activation) + products
        case Saturate():
            return 2 * value_bits
        case _:
            assert_never(activation)


def _skip_bits(graph: QuantGraph, operand: Tensor) -> int:
    """Bits of the level, or of the value, that a lane makes of an operand's code."""
    if operand.value_bits:
        return operand.value_bits
    if operand.is_detailed:
        return int(graph.detail_tables.max(axis=1).sum()).bit_length()
    largest = int(graph.skip_levels.max())
    return sum(largest << graph.part_shift * digit for digit in range(operand.parts)).bit_length()


def _pool_ace(graph: QuantGraph, layer: MaxPoolLayer) -> int:
    out = layer.output
    comparisons = out.channels * out.height * out.width * (layer.kernel[0] * layer.kernel[1] - 1)
    return comparisons * out.parts * graph.act_bits


def _mac_cycles(graph: QuantGraph, plan: Plan, step: LayerProgram) -> Shares:
    """Split a layer's cycles; those until the next starts by where its last sum is meanwhile."""
    to_value = step.tail + timing.OPERAND_DELAY + timing.requantize_delay(graph)
    way = (
        ("other", timing.WALK_DELAY + timing.MEMORY_DELAY),
        ("macs", timing.array_delay(plan, graph)),
        ("requantize", to_value),
        ("activation", 0 if step.output is None else timing.lane_delay(graph)),
        ("other", step.flush),
    )
    shares = {
        "macs": step.reads,
        "requantize": step.walk_cycles - step.reads,
        "activation": 0,
        "other": timing.FETCH_CYCLES + step.waits,
    }
    left = step.flush
    for component, delay in way:
        spent = min(left, delay)
        shares[component] += spent
        left -= spent
    return Shares(**shares)

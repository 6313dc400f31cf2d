"""One lane: accumulator and residual in, value in the activation's units out."""

from amaranth.hdl import Module, Mux, ShapeLike, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import In, Member, Out

from hwquant.gateware.component import Component
from hwquant.gateware.delay import delayed
from hwquant.gateware.multiply import multiplied, partly_multiplied
from hwquant.gateware.operand import level, operand_forms
from hwquant.ir import IntArray, MacLayer, QuantGraph
from hwquant.scheduler.plan import GATE_DELAY, requantize_delay


class LaneParameters(data.StructLayout):
    """Multiplier, bias, residual multiplier and gate's offset of one output channel, as stored.

    The bias includes half a unit of the result, so that the shift rounds half up.
    """

    def __init__(self, graph: QuantGraph) -> None:
        layers = [layer for layer in graph.layers if isinstance(layer, MacLayer)]
        residuals = [layer.residual for layer in layers if layer.residual is not None]
        gates = [layer.gate for layer in layers if layer.gate is not None]
        bias = max(int(abs(bias_with_half(layer)).max()) for layer in layers)
        fields: dict[str, ShapeLike] = {
            "multiplier": max(int(layer.multiplier.max()).bit_length() for layer in layers) or 1,
            "bias": signed(bias.bit_length() + 1),
        }
        if residuals:
            fields["residual"] = max(int(r.multiplier.max()).bit_length() for r in residuals) or 1
        if gates:
            offset = max(int(abs(gate.offset).max()) for gate in gates)
            fields["offset"] = signed(offset.bit_length() + 1)
        super().__init__(fields)


def bias_with_half(layer: MacLayer) -> IntArray:
    """Return the biases of a layer with the rounding constant of its shift added."""
    return layer.bias + ((1 << layer.shift) >> 1)


class Requantize(Component):
    """``(acc * multiplier + (skip << skip_shift) * residual + bias) >> shift``, in five registers.

    In a network with gates, ``acc`` becomes ``(acc + offset) * gate`` first, three registers more;
    in layers without, the offset is 0 and the gate 1.

    Members
    -------
    acc, parameters : of one output channel
    skip_0, skip_1, form : digits of the second operand's code, and which of the network's forms
        it has (``operand_forms``)
    gated : the second operand is a gate, else a residual; where the network has gates
    shift_select : index into the network's distinct shifts
    value : the result, ``plan.requantize_delay`` cycles later
    """

    def __init__(self, graph: QuantGraph, shifts: tuple[int, ...], *, in_blocks: bool) -> None:
        layers = [layer for layer in graph.layers if isinstance(layer, MacLayer)]
        self._graph = graph
        self._shifts = shifts
        self._in_blocks = in_blocks  # its multipliers, and not in LUTs
        gates = [layer.gate for layer in layers if layer.gate is not None]
        acc_bits = max(layer.acc_bits for layer in layers)
        self._gated_bits = max([acc_bits, *(gate.gated_bits for gate in gates)]) if gates else None
        self._sum_bits = max(layer.value_bits + layer.shift for layer in layers)
        self._parameters = LaneParameters(graph)
        gated: dict[str, Member] = {"gated": In(1)} if gates else {}
        super().__init__(
            gated
            | {
                "acc": In(signed(acc_bits)),
                "parameters": In(self._parameters),
                "skip_0": In(graph.act_bits),
                "skip_1": In(graph.act_bits),
                "form": In(range(max(2, len(operand_forms(graph))))),
                "shift_select": In(range(max(2, len(shifts)))),
                "value": Out(signed(max(layer.value_bits for layer in layers))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        acc, parameters, delay = self.acc, self.parameters, requantize_delay(self._graph)
        skip: tuple[Value, ...] = (self.skip_0, self.skip_1, self.form)
        if self._gated_bits is not None:
            acc = self._gated(m, self._gated_bits)
            late = delayed(m, parameters.as_value(), GATE_DELAY, "parameters")
            parameters = data.View(self._parameters, late)
            skip = tuple(
                delayed(m, value, GATE_DELAY, f"skip_{at}") for at, value in enumerate(skip)
            )
        in_blocks = self._in_blocks
        product = multiplied(m, acc, parameters.multiplier, "product", in_blocks=in_blocks)
        bias = delayed(m, parameters.bias, 2, "bias")
        # modulo 2**sum_bits is exact: the total is proved to fit, whatever the partial sums do
        biased, total = Signal(signed(self._sum_bits)), Signal(signed(self._sum_bits))
        m.d.sync += biased.eq(product + bias)
        if "residual" in self._parameters.members:
            m.d.sync += total.eq(biased + self._residual(m, parameters.residual, *skip))
        else:
            m.d.sync += total.eq(biased)
        with m.Switch(delayed(m, self.shift_select, delay - 1, "shift_select")):
            for at, shift in enumerate(self._shifts):
                with m.Case(at):
                    m.d.sync += self.value.eq(total >> shift)
        return m

    def _gated(self, m: Module, bits: int) -> Value:
        """Return the gated accumulator, ``plan.GATE_DELAY`` registers after the lane's inputs."""
        summed = Signal(signed(bits), name="offset_acc")
        forms = operand_forms(self._graph, residuals=False)
        given = level(self._graph, forms, self.skip_0, self.skip_1, self.form)
        gate = Signal(len(given), name="gate")
        # modulo 2**bits is exact here too: gated_bits is proved
        m.d.sync += [
            summed.eq(self.acc + self.parameters.offset),
            gate.eq(Mux(self.gated, given, 1)),
        ]
        product = multiplied(m, summed, gate, "gated", in_blocks=self._in_blocks)
        return product[:bits].as_signed()

    def _residual(
        self, m: Module, multiplier: Value, digit_0: Value, digit_1: Value, form: Value
    ) -> Value:
        """Return the residual's contribution, three registers after its digits."""
        forms = operand_forms(self._graph, gates=False)
        given = level(self._graph, forms, digit_0, digit_1, form)
        skip = Signal(len(given))
        factor, product, product_2 = (
            Signal(len(multiplier)),
            Signal(len(skip) + len(multiplier), reset_less=True),
            Signal(len(skip) + len(multiplier)),
        )
        m.d.sync += [skip.eq(given), factor.eq(multiplier)]
        if self._in_blocks:
            m.d.sync += [product.eq(skip * factor), product_2.eq(product)]
        else:
            parts = partly_multiplied(m, skip, factor, "residual", in_blocks=False)
            m.d.sync += product_2.eq(parts)
        return product_2 << self._graph.skip_shift

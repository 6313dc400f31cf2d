"""One lane: accumulator and residual in, value in the activation's units out."""

from amaranth.hdl import Module, Mux, ShapeLike, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.delay import delayed
from hwquant.gateware.lookup import lookup
from hwquant.ir import IntArray, MacLayer, QuantGraph
from hwquant.plan import REQUANTIZE_DELAY


class LaneParameters(data.StructLayout):
    """Multiplier, bias and residual multiplier of one output channel, as stored in memory.

    The bias includes half a unit of the result, so that the shift rounds half up.
    """

    def __init__(self, graph: QuantGraph) -> None:
        layers = [layer for layer in graph.layers if isinstance(layer, MacLayer)]
        residuals = [layer.residual for layer in layers if layer.residual is not None]
        bias = max(int(abs(bias_with_half(layer)).max()) for layer in layers)
        fields: dict[str, ShapeLike] = {
            "multiplier": max(int(layer.multiplier.max()).bit_length() for layer in layers) or 1,
            "bias": signed(bias.bit_length() + 1),
        }
        if residuals:
            fields["residual"] = max(int(r.multiplier.max()).bit_length() for r in residuals) or 1
        super().__init__(fields)


def bias_with_half(layer: MacLayer) -> IntArray:
    """Return the biases of a layer with the rounding constant of its shift added."""
    return layer.bias + ((1 << layer.shift) >> 1)


class Requantize(Component):
    """``(acc * multiplier + skip * residual + bias) >> shift``, five registers deep.

    Members
    -------
    acc, parameters : of one output channel
    skip_0, skip_1 : digits of the residual operand's code; ``two_digits`` if it has a second
    shift_select : index into the network's distinct shifts
    value : the result, ``plan.REQUANTIZE_DELAY`` cycles later
    """

    def __init__(self, graph: QuantGraph, shifts: tuple[int, ...]) -> None:
        layers = [layer for layer in graph.layers if isinstance(layer, MacLayer)]
        self._graph = graph
        self._shifts = shifts
        self._sum_bits = max(layer.value_bits + layer.shift for layer in layers)
        self._parameters = LaneParameters(graph)
        super().__init__(
            {
                "acc": In(signed(max(layer.acc_bits for layer in layers))),
                "parameters": In(self._parameters),
                "skip_0": In(graph.act_bits),
                "skip_1": In(graph.act_bits),
                "two_digits": In(1),
                "shift_select": In(range(max(2, len(shifts)))),
                "value": Out(signed(max(layer.value_bits for layer in layers))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parameters = self.parameters
        product, product_2 = _registers(len(self.acc) + len(parameters.multiplier), "product")
        bias_1, bias_2 = _registers(len(parameters.bias), "bias")
        m.d.sync += [
            product.eq(self.acc * parameters.multiplier),
            product_2.eq(product),
            bias_1.eq(parameters.bias),
            bias_2.eq(bias_1),
        ]
        # modulo 2**sum_bits is exact: the total is proved to fit, whatever the partial sums do
        biased, total = Signal(signed(self._sum_bits)), Signal(signed(self._sum_bits))
        m.d.sync += biased.eq(product_2 + bias_2)
        if "residual" in self._parameters.members:
            m.d.sync += total.eq(biased + self._residual(m))
        else:
            m.d.sync += total.eq(biased)
        with m.Switch(delayed(m, self.shift_select, REQUANTIZE_DELAY - 1, "shift_select")):
            for at, shift in enumerate(self._shifts):
                with m.Case(at):
                    m.d.sync += self.value.eq(total >> shift)
        return m

    def _residual(self, m: Module) -> Value:
        """Return the residual's contribution, three registers after the lane's inputs."""
        levels = [int(level) for level in self._graph.skip_levels]
        width = max(levels).bit_length()
        shift = self._graph.part_shift
        level_0, level_1 = (lookup(levels, code, width) for code in (self.skip_0, self.skip_1))
        skip = Signal(width + shift + 1)
        factor, product, product_2 = (
            Signal(len(self.parameters.residual)),
            Signal(len(skip) + len(self.parameters.residual)),
            Signal(len(skip) + len(self.parameters.residual)),
        )
        m.d.sync += [
            skip.eq(Mux(self.two_digits, (level_0 << shift) + level_1, level_0)),
            factor.eq(self.parameters.residual),
            product.eq(skip * factor),
            product_2.eq(product),
        ]
        return product_2


def _registers(bits: int, name: str) -> tuple[Signal, Signal]:
    """Return two signed signals that follow each other in the pipeline."""
    return Signal(signed(bits), name=name), Signal(signed(bits), name=f"{name}_2")

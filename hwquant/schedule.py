"""The program of the accelerator: which addresses a layer walks, and how many cycles it takes."""

from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from hwquant import plan as timing
from hwquant.errors import UnsupportedModel
from hwquant.ir import INPUT, Layer, MacLayer, MaxPoolLayer, QuantGraph
from hwquant.placement import Placement, packed_kernel, place
from hwquant.plan import Plan

LEVELS = 8  # loops of the sequencer, innermost first: see Loops


@dataclass(frozen=True)
class Loops:
    """A nest of ``LEVELS`` counters with one address stride a level, innermost first.

    The levels of a MAC layer: channel group, kernel column, kernel row, activation digit, weight
    digit | row group, output column, output row; the bar ends a sum. Max pooling uses digit, kernel
    column, kernel row, -, - | channel group, output column, output row.
    """

    counts: tuple[int, ...]
    act_strides: tuple[int, ...]
    weight_strides: tuple[int, ...]

    def deltas(self, strides: tuple[int, ...]) -> tuple[int, ...]:
        """Return the address step when a level ticks and all inner levels wrap."""
        steps: list[int] = []
        span = 0
        for count, stride in zip(self.counts, strides, strict=True):
            steps.append(stride - span)
            span += (count - 1) * stride
        return tuple(steps)

    @property
    def steps_per_sum(self) -> int:
        """Beats of the array for one group of outputs."""
        product = 1
        for count in self.counts[:5]:
            product *= count
        return product

    @property
    def sums(self) -> int:
        """Groups of outputs in the layer."""
        return self.counts[5] * self.counts[6] * self.counts[7]


@dataclass(frozen=True)
class ResidualWalk:
    """Addresses of a residual operand: base, step to the next column, step to the next row."""

    bank: int
    base: int
    plane: int
    digits: int
    column_step: int
    row_step: int
    chunk_offset: int


@dataclass(frozen=True)
class LayerProgram:
    """One layer as the sequencer runs it; addresses are already those of the memories."""

    name: str
    kind: Literal["mac", "maxpool"]
    layer: Layer
    source: Placement
    output: Placement | None
    loops: Loops
    act_base: int
    weight_base: int
    origin: tuple[int, int]
    stride: tuple[int, int]
    kernel: tuple[int, int]
    param_base: int
    residual: ResidualWalk | None
    turn_cycles: int
    extra_turn: int
    pace: int
    macs: int
    cycles: int

    @property
    def steps(self) -> int:
        """Cycles in which the sequencer walks: a sum takes its beats or, if longer, its drain."""
        return self.loops.sums * max(self.loops.steps_per_sum, self.pace)

    @property
    def weight_words(self) -> int:
        """Words of the weight memory."""
        if self.kind == "maxpool":
            return 0
        spans = zip(self.loops.counts, self.loops.weight_strides, strict=True)
        return 1 + sum((count - 1) * stride for count, stride in spans)


@dataclass(frozen=True)
class Loading:
    """How a frame arrives.

    A ``packed`` row has ``positions`` virtual pixels, the first ``lead`` of them padding, and its
    windows are ``kernel_cols`` wide and ``stride_cols`` apart. ``cycles`` run from the first beat
    until the first layer may start.
    """

    packed: bool
    channels_per_beat: int
    beats: int
    lead: int
    positions: int
    kernel_cols: int
    stride_cols: int
    cycles_per_beat: int
    cycles: int


@dataclass(frozen=True)
class Schedule:
    """Everything the gateware needs beside the numbers of ``QuantGraph``."""

    plan: Plan
    loading: Loading
    input: Placement
    layers: tuple[LayerProgram, ...]
    bank_words: tuple[int, int]
    cycles: int = field(default=0)

    @property
    def weight_words(self) -> int:
        """Depth of the weight memory."""
        return sum(program.weight_words for program in self.layers)


def schedule(graph: QuantGraph, plan: Plan) -> Schedule:
    """Place the tensors of ``graph`` and derive the program and the exact cycles for ``plan``.

    Raises
    ------
    UnsupportedModel
        If a layer adds its own source, or residuals cannot be given banks of their own.
    """
    packed = packed_kernel(graph, plan)
    places, bank_words = place(graph, plan, packed)
    loading = _loading(graph, plan, places[INPUT], packed)
    programs: list[LayerProgram] = []
    weight_base = param_base = 0
    for layer in graph.layers:
        match layer:
            case MacLayer():
                program = _mac_program(graph, plan, places, layer, packed)
                program = replace(program, weight_base=weight_base, param_base=param_base)
                param_base += -(-layer.output.channels // plan.lanes)
            case MaxPoolLayer():
                program = _pool_program(places, layer)
            case _:
                assert_never(layer)
        weight_base += program.weight_words
        programs.append(replace(program, cycles=_cycles(graph, plan, program)))
    total = loading.cycles + sum(program.cycles for program in programs)
    return Schedule(plan, loading, places[INPUT], tuple(programs), bank_words, total)


def _loading(graph: QuantGraph, plan: Plan, stored: Placement, packed: MacLayer | None) -> Loading:
    tensor = graph.input.tensor
    channels = min(tensor.channels, plan.cols)
    beats_per_pixel = 1 if packed is not None else -(-tensor.channels // plan.cols)
    beats = tensor.height * tensor.width * beats_per_pixel
    per_beat = 1 if stored.split else stored.digits
    if packed is None:
        cycles = beats * per_beat + timing.LOAD_DELAY
        return Loading(False, channels, beats, 0, 0, 1, 1, per_beat, cycles)
    lead = packed.pads[1]
    kernel, stride = packed.kernel[1], packed.stride[1]
    positions = max(lead + tensor.width, (packed.output.width - 1) * stride + kernel)
    cycles = (tensor.height * positions - lead) * per_beat + timing.LOAD_DELAY
    return Loading(True, channels, beats, lead, positions, kernel, stride, per_beat, cycles)


def _mac_program(
    graph: QuantGraph,
    plan: Plan,
    places: dict[str, Placement],
    layer: MacLayer,
    packed: MacLayer | None,
) -> LayerProgram:
    source = places[layer.source]
    is_packed = packed is layer
    kernel = (layer.kernel[0], 1) if is_packed else layer.kernel
    stride = (layer.stride[0], 1) if is_packed else layer.stride
    origin = (-layer.pads[0], 0 if is_packed else -layer.pads[1])
    weight_digits, channels_out = layer.weights.shape[:2]
    groups, row = source.groups, source.width * source.groups
    row_groups = -(-channels_out // plan.rows)
    window = groups if layer.shared else groups * kernel[0] * kernel[1]
    loops = Loops(
        counts=(
            groups,
            kernel[1],
            kernel[0],
            source.digits,
            weight_digits,
            row_groups,
            layer.output.width,
            layer.output.height,
        ),
        act_strides=(
            1,
            groups,
            row,
            0 if source.split else source.plane,
            0,
            0,
            stride[1] * groups,
            stride[0] * row,
        ),
        weight_strides=(
            1,
            0 if layer.shared else groups,
            0 if layer.shared else groups * kernel[1],
            0,
            window,
            window * weight_digits,
            0,
            0,
        ),
    )
    residual = _residual_walk(plan, places, layer)
    turn_cycles = residual.digits if residual else 1
    # two digits take two writes: where a pixel's last word has a single chunk, that waits a cycle
    chunks = -(-channels_out // plan.lanes)
    lone_chunk = (chunks - 1) % (plan.cols // plan.lanes) == 0
    two_writes = layer.name in places and layer.output.parts == 2
    extra_turn = int(two_writes and lone_chunk and turn_cycles == 1)
    return LayerProgram(
        name=layer.name,
        kind="mac",
        layer=layer,
        source=source,
        output=places.get(layer.name),
        loops=loops,
        act_base=source.base + origin[0] * row + origin[1] * groups,
        weight_base=0,
        origin=origin,
        stride=stride,
        kernel=kernel,
        param_base=0,
        residual=residual,
        turn_cycles=turn_cycles,
        extra_turn=extra_turn,
        pace=plan.chunks * turn_cycles + extra_turn,
        macs=_macs(graph, layer),
        cycles=0,
    )


def _macs(graph: QuantGraph, layer: MacLayer) -> int:
    """Multiply-accumulates as the field counts them: an average pool folded in costs none."""
    out = layer.output
    window = 1 if layer.shared else layer.kernel[0] * layer.kernel[1]
    channels = graph.tensor(layer.source).channels
    return out.channels * out.height * out.width * channels * window


def _residual_walk(
    plan: Plan, places: dict[str, Placement], layer: MacLayer
) -> ResidualWalk | None:
    if layer.residual is None:
        return None
    place = places[layer.residual.source]
    if layer.residual.channel_offset % plan.lanes:
        raise UnsupportedModel(
            f"{layer.name}: residual moved by {layer.residual.channel_offset} channels; "
            f"lanes={plan.lanes} must divide that"
        )
    step = layer.residual.stride[1] * place.groups
    row = layer.residual.stride[0] * place.width * place.groups
    return ResidualWalk(
        place.bank,
        place.base,
        place.plane,
        place.digits,
        step,
        row - (layer.output.width - 1) * step,
        layer.residual.channel_offset // plan.lanes,
    )


def _pool_program(places: dict[str, Placement], layer: MaxPoolLayer) -> LayerProgram:
    source = places[layer.source]
    groups, row = source.groups, source.width * source.groups
    loops = Loops(
        counts=(
            source.digits,
            layer.kernel[1],
            layer.kernel[0],
            1,
            1,
            groups,
            layer.output.width,
            layer.output.height,
        ),
        act_strides=(
            source.plane,
            groups,
            row,
            0,
            0,
            1,
            layer.stride[1] * groups,
            layer.stride[0] * row,
        ),
        weight_strides=(0,) * LEVELS,
    )
    origin = (-layer.pads[0], -layer.pads[1])
    return LayerProgram(
        name=layer.name,
        kind="maxpool",
        layer=layer,
        source=source,
        output=places[layer.name],
        loops=loops,
        act_base=source.base + origin[0] * row + origin[1] * groups,
        weight_base=0,
        origin=origin,
        stride=layer.stride,
        kernel=layer.kernel,
        param_base=0,
        residual=None,
        turn_cycles=1,
        extra_turn=0,
        pace=1,
        macs=0,
        cycles=0,
    )


def _cycles(graph: QuantGraph, plan: Plan, program: LayerProgram) -> int:
    """Cycles from the start of a layer to the start of the next, or to the last output beat."""
    steps = program.steps
    if program.kind == "maxpool":
        return timing.FETCH_CYCLES + steps + timing.POOL_FLUSH
    assert isinstance(program.layer, MacLayer)
    channels = program.layer.output.channels - (program.loops.counts[5] - 1) * plan.rows
    tail = -(-channels // plan.lanes) * program.turn_cycles + program.extra_turn
    flush = timing.output_flush if program.output is None else timing.mac_flush
    return timing.FETCH_CYCLES + steps + flush(plan, graph, tail)

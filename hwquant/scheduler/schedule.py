"""The program of the accelerator: which addresses a layer walks, and how many cycles it takes."""

from dataclasses import replace
from typing import assert_never

from hwquant.errors import UnsupportedModel
from hwquant.ir import (
    INPUT,
    AttentionLayer,
    ConcatLayer,
    EmbeddingLayer,
    LayerNormLayer,
    MacLayer,
    MatMulLayer,
    MaxPoolLayer,
    QuantGraph,
    SoftmaxLayer,
)
from hwquant.scheduler.channel_walk import ChannelWalk, channel_walk, dense_walk
from hwquant.scheduler.layout import Layout, layouts
from hwquant.scheduler.loading import frame_loading, with_row_waits
from hwquant.scheduler.overlap import flushes
from hwquant.scheduler.placement import Packing, Placement, packings, place
from hwquant.scheduler.plan import FETCH_CYCLES, Plan, drain_delay
from hwquant.scheduler.program import (
    SUM_LEVELS,
    LayerProgram,
    Loops,
    ResidualWalk,
    Schedule,
    drain_lead,
)
from hwquant.scheduler.row_walk import RowWalk, row_walks
from hwquant.scheduler.weight_stream import beats_of_word, buffer_words, tiled, with_waits


def schedule(graph: QuantGraph, plan: Plan) -> Schedule:
    """Place the tensors of ``graph`` and derive the program and the exact cycles for ``plan``.

    Of the ways to store the input that of the fewest cycles is taken.

    Raises
    ------
    UnsupportedModel
        If a layer is a transformer's or adds its own source, second operands cannot be given banks
        of their own or lie in other places than the output, a tensor is part of two concats, or the
        weight stream's beats make no words.
    """
    for layer in graph.layers:
        if isinstance(layer, AttentionLayer):
            raise _golden_only(layer)
    found = [_schedule(graph, plan, packing) for packing in packings(graph, plan)]
    return min(found, key=lambda program: program.cycles)


def _schedule(graph: QuantGraph, plan: Plan, packing: Packing | None) -> Schedule:
    places, bank_words = place(graph, plan, packing)
    lies = layouts(graph, plan.cols)
    loading = frame_loading(graph, plan, places[INPUT], packing)
    programs: list[LayerProgram] = []
    weight_base = param_base = 0
    for layer in graph.layers:
        match layer:
            case MacLayer():
                packed = packing is not None and layer is packing.layer
                walks = _mac_programs(graph, plan, places, lies, layer, packed=packed)
                program = min(walks, key=lambda program: program.steps)
                program = replace(program, weight_base=weight_base, param_base=param_base)
                param_base += program.chunks
            case MaxPoolLayer():
                program = _pool_program(plan, places, layer)
            case ConcatLayer():
                continue
            case EmbeddingLayer() | LayerNormLayer() | MatMulLayer() | SoftmaxLayer():
                raise _golden_only(layer)
            case _:
                assert_never(layer)
        weight_base += program.weight_words
        programs.append(program)
    if all(program.walk.repeat == 1 for program in programs):
        programs = [replace(p, loops=p.loops.without(SUM_LEVELS)) for p in programs]
    buffered = 0
    if plan.is_streamed:
        programs = [tiled(program, plan) for program in programs]
    programs = [
        replace(program, cycles=FETCH_CYCLES + program.steps + flush)
        for program, flush in zip(programs, flushes(graph, plan, programs), strict=True)
    ]
    if plan.is_streamed:
        programs = with_waits(programs, loading, beats_of_word(graph, plan))
        buffered = buffer_words(programs)
    elif loading.ring_rows:
        programs[0] = with_row_waits(programs[0], loading)
    total = loading.cycles + sum(program.cycles for program in programs)
    to_drain = drain_delay(plan, graph) + drain_lead(programs)
    return Schedule(
        plan, loading, places[INPUT], tuple(programs), bank_words, to_drain, total, buffered
    )


def _golden_only(layer: AttentionLayer) -> UnsupportedModel:
    return UnsupportedModel(f"{layer.name}: attention is computed in golden only so far")


def _mac_programs(
    graph: QuantGraph,
    plan: Plan,
    places: dict[str, Placement],
    lies: dict[str, Layout],
    layer: MacLayer,
    *,
    packed: bool,
) -> list[LayerProgram]:
    """Return the programs that compute a layer, one for each way along a row of its source."""
    source, out_layout = places[layer.source], lies[layer.name]
    if packed:
        dense = dense_walk(source.layout.words, out_layout.extent, plan.rows)
        walk, rows = dense, [RowWalk(1, 1, 0)]
    else:
        walk = channel_walk(
            layer, source.layout, out_layout, plan.rows, to_memory=layer.name in places
        )
        digits = graph.tensor(layer.source).read_parts
        rows = row_walks(layer, source, out_layout, walk, digits, plan)
    return [_mac_program(graph, plan, places, out_layout, layer, walk, row) for row in rows]


def _mac_program(
    graph: QuantGraph,
    plan: Plan,
    places: dict[str, Placement],
    out_layout: Layout,
    layer: MacLayer,
    walk: ChannelWalk,
    along: RowWalk,
) -> LayerProgram:
    source = places[layer.source]
    down = RowWalk(layer.kernel[0], layer.stride[0], -layer.pads[0])
    if source.ring:  # a window is a pixel
        down = RowWalk(1, 1, 0)
    kernel, stride = (down.kernel, along.kernel), (down.stride, along.stride)
    origin = (down.origin, along.origin)
    weight_digits, act_digits = graph.digits(layer)
    pixel, row = source.pitch, source.row
    window = walk.count if layer.shared else walk.count * kernel[0] * kernel[1]
    loops = Loops(
        counts=(
            walk.count,
            kernel[1],
            kernel[0],
            act_digits,
            weight_digits,
            walk.repeat,
            walk.row_groups // walk.repeat,
            *along.extent(layer.output.width, layer.output.height),
        ),
        act_strides=(
            1,
            pixel,
            row,
            0 if source.split else source.plane,
            0,
            0,
            walk.step,
            stride[1] * pixel,
            stride[0] * row,
        ),
        weight_strides=(
            1,
            0 if layer.shared else walk.count,
            0 if layer.shared else walk.count * kernel[1],
            0,
            window,
            window * weight_digits,
            window * weight_digits * walk.repeat,
            0,
            0,
        ),
        is_truncated=graph.is_truncated(layer),
    )
    residual = _residual_walk(plan, places, out_layout, layer)
    turn_cycles = residual.digits if residual else 1
    # two digits take two writes: where a pixel's last word has a single chunk, that waits a cycle
    chunks = -(-walk.channels // plan.lanes)
    lone_chunk = (chunks - 1) % (plan.cols // plan.lanes) == 0
    two_writes = layer.name in places and layer.output.parts == 2
    extra_turn = int(two_writes and lone_chunk and turn_cycles == 1)
    last_chunks = chunks - (walk.row_groups - 1) * plan.chunks
    return LayerProgram(
        name=layer.name,
        kind="mac",
        layer=layer,
        source=source,
        output=places.get(layer.name),
        out_layout=out_layout,
        walk=walk,
        row=along,
        chunks=chunks,
        loops=loops,
        act_base=source.base + origin[0] * row + origin[1] * pixel,
        weight_base=0,
        origin=origin,
        stride=stride,
        kernel=kernel,
        param_base=0,
        residual=residual,
        turn_cycles=turn_cycles,
        extra_turn=extra_turn,
        pace=plan.chunks * turn_cycles + extra_turn,
        tail=last_chunks * turn_cycles + extra_turn,
        macs=_macs(graph, layer),
        cycles=0,
    )


def _macs(graph: QuantGraph, layer: MacLayer) -> int:
    """Multiply-accumulates as the field counts them: an average pool folded in costs none.

    Digits of a pixel that are channels are one channel.
    """
    out = layer.output
    window = 1 if layer.shared else layer.kernel[0] * layer.kernel[1]
    macs = out.channels * out.height * out.width * layer.weights.shape[2] * window
    return macs // pixel_digits(graph, layer.source)


def pixel_digits(graph: QuantGraph, name: str) -> int:
    """Return how many channels of a tensor are digits of one: of the input those of a pixel."""
    return len(graph.input.tables) if name == INPUT else 1


def _residual_walk(
    plan: Plan, places: dict[str, Placement], out: Layout, layer: MacLayer
) -> ResidualWalk | None:
    """Walk the residual's pixels, or stay on the gate's only one."""
    if layer.operand is None:
        return None
    place = places[layer.operand]
    moved, stride = 0, (0, 0)
    if layer.residual is not None:
        moved, stride = layer.residual.channel_offset, layer.residual.stride
    if moved % plan.lanes:
        raise UnsupportedModel(
            f"{layer.name}: residual moved by {moved} channels; lanes={plan.lanes} must divide that"
        )
    given = out.positions[max(0, moved) :]
    taken = place.layout.positions[max(0, -moved) :]
    distances = {a - b for a, b in zip(given.tolist(), taken.tolist(), strict=False)} or {moved}
    if len(distances) > 1 or (distance := distances.pop()) % plan.lanes:
        raise UnsupportedModel(
            f"{layer.name}: {layer.operand} lies in parts of a concat, and not as the output does; "
            "hwquant needs a layer between them"
        )
    step = stride[1] * place.pitch
    row = stride[0] * place.row
    return ResidualWalk(
        place.bank,
        place.base,
        place.plane,
        place.digits,
        step,
        row - (layer.output.width - 1) * step,
        distance // plan.lanes,
    )


def _pool_program(plan: Plan, places: dict[str, Placement], layer: MaxPoolLayer) -> LayerProgram:
    source = places[layer.source]
    pixel, row = source.pitch, source.row
    loops = Loops(
        counts=(
            source.digits,
            layer.kernel[1],
            layer.kernel[0],
            1,
            1,
            1,
            source.groups,
            layer.output.width,
            layer.output.height,
        ),
        act_strides=(
            source.plane,
            pixel,
            row,
            0,
            0,
            0,
            1,
            layer.stride[1] * pixel,
            layer.stride[0] * row,
        ),
        weight_strides=(0,) * 9,
    )
    origin = (-layer.pads[0], -layer.pads[1])
    return LayerProgram(
        name=layer.name,
        kind="maxpool",
        layer=layer,
        source=source,
        output=places[layer.name],
        out_layout=source.layout,
        walk=dense_walk(source.groups, source.layout.extent, plan.rows),
        row=RowWalk(layer.kernel[1], layer.stride[1], origin[1]),
        chunks=0,
        loops=loops,
        act_base=source.base + origin[0] * row + origin[1] * pixel,
        weight_base=0,
        origin=origin,
        stride=layer.stride,
        kernel=layer.kernel,
        param_base=0,
        residual=None,
        turn_cycles=1,
        extra_turn=0,
        pace=1,
        tail=0,
        macs=0,
        cycles=0,
    )

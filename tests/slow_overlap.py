"""A slow, obvious model of a frame: every read, turn and write, in its cycle; and what collides.

Layer by layer, step by step and word by word, from the documented delays. No stream stalls, and
layers wait for neither weights nor rows of the input, which would only pull them apart.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, field

from hwquant.ir import QuantGraph
from hwquant.scheduler.plan import (
    FETCH_CYCLES,
    MEMORY_DELAY,
    OPERAND_DELAY,
    RELEASE_DELAY,
    WALK_DELAY,
    array_delay,
    lane_delay,
    requantize_delay,
)
from hwquant.scheduler.program import SUM_LEVELS, LayerProgram, Schedule

Access = tuple[int, int, int, int]  # cycle, layer, bank, address


@dataclass
class Events:
    """What happens in a frame, in cycles from the start of the first layer."""

    starts: list[int] = field(default_factory=list)  # of each layer
    last_steps: list[int] = field(default_factory=list)
    reads: list[Access] = field(default_factory=list)  # of the sequencer, padding left out
    operands: list[Access] = field(default_factory=list)  # of the drain
    writes: list[Access] = field(default_factory=list)
    words: list[tuple[int, int]] = field(default_factory=list)  # cycle, layer: a word is complete
    turns: list[tuple[int, int, int]] = field(default_factory=list)  # first and last cycle, layer


def replay(graph: QuantGraph, schedule: Schedule) -> Events:
    """Pass a frame through."""
    events, start = Events(), 0
    for at, program in enumerate(schedule.layers):
        events.starts.append(start)
        sums = _walk(schedule, program, at, start + FETCH_CYCLES, events)
        events.last_steps.append(sums[-1])
        if program.kind == "maxpool":
            full = [end + WALK_DELAY + MEMORY_DELAY + 1 for end in sums]
        else:
            full = _drain(graph, schedule, program, at, sums, events)
        if program.output:
            _write(schedule, program, at, full, events)
        start = sums[-1] + 1 + program.flush
    return events


def _walk(
    schedule: Schedule, program: LayerProgram, at: int, cycle: int, events: Events
) -> list[int]:
    """Take all steps from ``cycle`` on; return the cycles of those that end sums."""
    loops, source, row = program.loops, program.source, program.row
    counts, tiled = loops.counts, schedule.plan.is_streamed
    tiles, (lines, columns) = (
        range(counts[-1] if tiled else 1),
        counts[-1 - tiled : -3 - tiled : -1],
    )
    every, groups = math.prod(counts[:SUM_LEVELS]), math.prod(counts[SUM_LEVELS : -2 - tiled])
    beats = every - loops.is_truncated * math.prod(counts[:3])  # without the last pass
    ready, ends = cycle + program.last_pace - 1, list[int]()
    for tile in tiles:
        for line in range(lines):
            left = row.lead
            for column in range(columns):
                is_turn = row.turns and column == 0 and line > 0
                is_fill = left > 0 and not is_turn
                left = left - 1 if left else row.gap
                for group in range(groups):
                    for beat in range(beats):
                        index = _digits(beat + every * group, counts[: -2 - tiled])
                        if is_fill and index[SUM_LEVELS - 1]:
                            continue
                        if beat == beats - 1 and not is_fill:
                            cycle = max(cycle, ready)
                            ends.append(cycle)
                            is_last = group == groups - 1
                            ready = cycle + (program.last_pace if is_last else program.pace)
                        y = program.origin[0] + line * program.stride[0] + index[2]
                        x = program.origin[1] + column * program.stride[1] + index[1]
                        if 0 <= y < source.height and 0 <= x < source.width:
                            place = [*index, column, line, *([tile] if tiled else [])]
                            way = sum(a * b for a, b in zip(place, loops.act_strides, strict=True))
                            address = program.act_base + way
                            if source.ring:
                                address %= source.ring
                            bank = source.bank ^ (index[3] if source.split else 0)
                            events.reads.append((cycle + WALK_DELAY, at, bank, address))
                        cycle += 1
                if is_turn and line == lines - 1:
                    break  # the last row's last sum
    return ends


def _digits(number: int, counts: tuple[int, ...]) -> list[int]:
    found: list[int] = []
    for count in counts:
        number, digit = divmod(number, count)
        found.append(digit)
    return found


def _drain(
    graph: QuantGraph,
    schedule: Schedule,
    program: LayerProgram,
    at: int,
    sums: list[int],
    events: Events,
) -> list[int]:
    """Drain all sums; return the cycles in which words are complete."""
    plan, residual = schedule.plan, program.residual
    of_tile = -(-program.walk.row_groups // program.tiles) * plan.chunks
    to_code = OPERAND_DELAY + requantize_delay(graph) + lane_delay(graph)
    queue, full = iter(sums), list[int]()
    for tile in range(program.tiles):
        chunks = range(tile * of_tile, min((tile + 1) * of_tile, program.chunks))
        for y in range(program.layer.output.height):
            for x in range(program.layer.output.width):
                slot = cycle = 0
                for chunk in chunks:
                    if chunk % plan.chunks == 0:
                        cycle = next(queue) + WALK_DELAY + MEMORY_DELAY + array_delay(plan, graph)
                    begin, ends_pixel = cycle + 1, chunk == chunks[-1]
                    cycle += program.turn_cycles + program.extra_turn * ends_pixel
                    events.turns.append((begin, cycle, at))
                    if residual and chunk >= residual.chunk_offset:  # else there is no channel
                        word = (chunk - residual.chunk_offset) * plan.lanes // plan.cols
                        row = residual.row_step + residual.column_step * (
                            program.layer.output.width - 1
                        )
                        address = residual.base + y * row + x * residual.column_step + word
                        if residual.digits == 2:
                            events.operands.append((cycle, at, residual.bank, address))
                            address += residual.plane
                        events.operands.append((cycle + 1, at, residual.bank, address))
                    slot += 1
                    if ends_pixel or slot == plan.cols // plan.lanes:
                        full.append(cycle + to_code + 1)
                        slot = 0
    assert not list(queue)
    return full


def _write(
    schedule: Schedule, program: LayerProgram, at: int, full: list[int], events: Events
) -> None:
    """Write the words in order: pixel by pixel, of streamed weights tile by tile."""
    place, words = program.output, iter(full)
    assert place is not None
    of_tile = place.groups // program.tiles
    for tile in range(program.tiles):
        for pixel in range(place.height * place.width):
            for word in range(tile * of_tile, (tile + 1) * of_tile):
                cycle = next(words)
                events.words.append((cycle, at))
                address = place.base + pixel * place.pitch + word
                for digit in range(place.digits):
                    events.writes.append(
                        (cycle + digit, at, place.bank, address + digit * place.plane)
                    )
    assert not list(words)


def collisions(schedule: Schedule, events: Events) -> list[str]:
    """Return what goes wrong where layers overlap: nothing, if the schedule is right."""
    found: list[str] = []
    layers, in_sprams = schedule.layers, schedule.plan.device == "ice40up5k"
    written: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for cycle, by, bank, address in events.writes:
        written[bank, address].append((by, cycle))
    for kind, accesses in (("source", events.reads), ("operand", events.operands)):
        for cycle, by, bank, address in accesses:
            late = [w for w in written[bank, address] if w[0] < by and w[1] >= cycle]
            early = [w for w in written[bank, address] if w[0] > by and w[1] <= cycle]
            if late or early:
                found.append(f"layer {by} reads a word of its {kind} in {cycle}: {late or early}")
    reads = {(cycle, bank) for cycle, _, bank, _ in events.reads}
    found += [f"{it}: bank is read twice" for it in events.operands if (it[0], it[2]) in reads]
    if in_sprams:
        writes = {(cycle, bank, address >> 14) for cycle, _, bank, address in events.writes}
        accesses = [*events.reads, *events.operands]
        read = {(cycle, bank, address >> 14) for cycle, _, bank, address in accesses}
        found += [f"{it}: SPRAM is read and written" for it in writes & read]
    ports = [(cycle, bank) for cycle, _, bank, _ in events.writes]
    if len(ports) != len(set(ports)):
        found.append("a bank is written twice in a cycle")
    loads = events.last_steps[-1] + 1 + layers[-1].flush
    found += [f"{it}: in the next frame" for it in events.writes if it[0] >= loads]
    for at, program in enumerate(layers):
        if program.kind == "mac":
            turned = events.starts[at] + schedule.drain_start
            first = min(begin for begin, _, of in events.turns if of == at)
            last = max((end for _, end, of in events.turns if of < at), default=0)
            if not last <= turned <= first - 2:
                found.append(f"layer {at}: {last} <= {turned} <= {first} - 2 for the drain")
        else:  # the writer turns to it at once
            before = max((cycle for cycle, of in events.words if of < at), default=0)
            if before > events.starts[at]:
                found.append(f"layer {at} starts in {events.starts[at]}, before word {before}")
        if at and schedule.plan.is_streamed:  # the buffer looks for its first tile a cycle later
            looks = events.starts[at] + 1
            if looks < events.last_steps[at - 1] + RELEASE_DELAY:
                found.append(f"layer {at} looks for weights before the tile before is released")
    for (_, end, of), (begin, _, after) in zip(events.turns, events.turns[1:], strict=False):
        if begin <= end:
            found.append(f"turns of layers {of} and {after} overlap in {begin}")
    return found

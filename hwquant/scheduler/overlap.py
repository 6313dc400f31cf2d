"""When the next layer starts: as early as it can, while sums of the layers before are on their way.

It may read a word once that is written, a bank once no operand of a layer before is read there, and
an SPRAM, which reads or writes in a cycle, once nothing is written there. Its first sum may reach
the drain once that has ended the layer before. A max pool overtakes codes on their way to memory,
so it waits until all words are complete.

A cycle here counts from the last step of a layer, if no stream stalls. Stalls only add to the time
between what was written and what is read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from hwquant.fpga.devices import SPRAM_WORDS, has_sprams
from hwquant.ir import QuantGraph
from hwquant.scheduler import plan as timing
from hwquant.scheduler.plan import Plan
from hwquant.scheduler.program import SUM_LEVELS, LayerProgram, drain_lead

Place = tuple[int, int]  # bank, and address or number of the SPRAM


def flushes(graph: QuantGraph, plan: Plan, programs: Sequence[LayerProgram]) -> list[int]:
    """Return the cycles from each layer's last step until the next starts.

    Of the last layer, until its last output beat.
    """
    lead, found = drain_lead(programs), list[int]()
    to_word = timing.code_delay(graph) + timing.WORD_DELAY
    way = _Way(plan, timing.drain_delay(plan, graph), to_word)
    output = timing.output_flush(plan, graph, programs[-1].tail)
    flight = _Flight({}, {})
    for program, following in pairwise(programs):
        flight = flight.with_last_words(way, program)
        least = [0]
        if plan.is_streamed:  # a tile makes room before the next layer's is awaited
            least.append(timing.RELEASE_DELAY - timing.FETCH_CYCLES)
        if program.kind == "mac":
            least.append(program.tail - 1 - lead)
        if following.kind == "maxpool":
            least.append(_last_word(way, program) - 1)
        if following is programs[-1]:  # before a frame is loaded, all words of the last are written
            rest = timing.FETCH_CYCLES + following.walk_cycles + output
            least.append(max(flight.writes.values(), default=0) - rest)
        found.append(max(*least, flight.wait(way, following)))
        flight = flight.later(found[-1] + timing.FETCH_CYCLES + following.walk_cycles)
    return [*found, output]


@dataclass(frozen=True)
class _Way:
    """Cycles from a sum's last step to the drain, and from a turn of the drain to a whole word."""

    plan: Plan
    to_drain: int
    to_word: int


def _last_word(way: _Way, program: LayerProgram) -> int:
    """Return when the last word is complete; its second digit is written a cycle later."""
    if program.kind == "maxpool":
        return timing.POOL_DELAY
    return way.to_drain + program.tail + way.to_word


@dataclass(frozen=True)
class _Flight:
    """What layers have still to do: writes, and a bank's last read of an operand; their cycles."""

    writes: dict[Place, int]
    operands: dict[int, int]

    def with_last_words(self, way: _Way, program: LayerProgram) -> "_Flight":
        """Add what a layer does after its last step."""
        writes, operands = dict(self.writes), dict(self.operands)
        if program.residual:
            operands[program.residual.bank] = way.to_drain + program.tail + 1
        if place := program.output:
            for cycle, pixel, at in _last_words(way, program):
                for digit in range(place.digits):
                    address = place.base + pixel * place.pitch + at + digit * place.plane
                    at_place = _place(way.plan, place.bank, address)
                    writes[at_place] = max(writes.get(at_place, 0), cycle + digit)
        return _Flight(writes, operands)

    def later(self, cycles: int) -> "_Flight":
        """Return what is left so many cycles later."""
        return _Flight(
            {place: cycle - cycles for place, cycle in self.writes.items() if cycle > cycles},
            {bank: cycle - cycles for bank, cycle in self.operands.items() if cycle > cycles},
        )

    def wait(self, way: _Way, following: LayerProgram) -> int:
        """Return how long the next layer has to wait for words and banks."""
        least, last = 0, max([0, *self.writes.values(), *self.operands.values()])
        first = 1 + timing.FETCH_CYCLES  # of its steps, if it does not wait
        for step in _first_steps(following, way.plan, last):
            for cycle, bank, address in _reads(following, step):
                written = self.writes.get(_place(way.plan, bank, address), 0)
                least = max(least, max(written, self.operands.get(bank, 0)) + 1 - (first + cycle))
            for cycle, bank, address in _operand_reads(following, way, step):
                written = self.writes.get(_place(way.plan, bank, address), 0)
                least = max(least, written + 1 - (first + cycle))
        return least


def _place(plan: Plan, bank: int, address: int) -> Place:
    return bank, address // SPRAM_WORDS if has_sprams(plan.device) else address


def _last_words(way: _Way, program: LayerProgram) -> Iterator[tuple[int, int, int]]:
    """Yield words that are written after the last step: cycle, pixel, which of its words."""
    slots = way.plan.cols // way.plan.lanes
    longest = _last_word(way, program) + program.pace
    for last_step, pixel, at in _last_sums(program):
        if last_step + longest < 0:
            return
        if program.kind == "maxpool":
            yield last_step + timing.POOL_DELAY, pixel, at
            continue
        for turn, chunk, is_end in _turns(way, program, at):
            if is_end or (chunk + 1) % slots == 0:
                yield last_step + turn + way.to_word, pixel, chunk // slots


def _last_sums(program: LayerProgram) -> Iterator[tuple[int, int, int]]:
    """Yield sums from the last on: the cycle of the last step, pixel, and number in the pixel."""
    of_pixel, output, cycle = program.sums_of_pixel, program.layer.output, 0
    pixels = output.height * output.width
    for number in reversed(range(program.tiles * pixels * of_pixel)):
        tile_pixel, at = divmod(number, of_pixel)
        tile, pixel = divmod(tile_pixel, pixels)
        yield cycle, pixel, tile * of_pixel + at
        row, column = divmod(pixel, output.width)
        fills, pace = program.row.fills_before(column, row), program.last_pace
        cycle -= program.sum_cycles(0, program.pace) if at else program.sum_cycles(fills, pace)


def _turns(way: _Way, program: LayerProgram, at: int) -> Iterator[tuple[int, int, bool]]:
    """Yield the turns of a pixel's sum ``at``: the cycle after its last step, chunk, is it the end.

    The end is the last chunk that the tile has of the pixel.
    """
    cycle, first = way.to_drain, at * way.plan.chunks
    last = min(first + way.plan.chunks, program.chunks) - 1
    for chunk in range(first, last + 1):
        is_end = chunk == last and (at + 1) % program.sums_of_pixel == 0
        cycle += program.turn_cycles + (program.extra_turn if is_end else 0)
        yield cycle, chunk, is_end


@dataclass(frozen=True)
class _Step:
    """A step, ``cycle`` cycles after the layer's first: where the loops stand.

    If it ends a sum, that is ``pixel``'s number ``at``.
    """

    cycle: int
    index: tuple[int, ...]
    column: int
    line: int
    ends: bool
    pixel: int
    at: int


def _first_steps(program: LayerProgram, plan: Plan, cycles: int) -> Iterator[_Step]:
    """Yield the steps of a layer's first ``cycles`` cycles, if it waits for no stream."""
    counts, of_pixel = program.loops.counts, program.sums_of_pixel
    pixels = program.layer.output.height * program.layer.output.width
    image = len(counts) - plan.is_streamed
    cycle, ready, sums = 0, program.last_pace - 1, 0
    for reverse in product(*(range(count) for count in reversed(counts))):
        index = reverse[::-1]
        column, line = index[image - 2 : image]
        is_fill = not program.row.has_sum(column, line)
        if is_fill and index[SUM_LEVELS - 1]:
            continue  # its words are read for the first digit of the weights alone
        if program.loops.leaves_out(index):
            continue
        ends = program.loops.ends_sum(index) and not is_fill
        if ends:
            cycle = max(cycle, ready)
        if cycle >= cycles:
            return
        tile_pixel, at = divmod(sums, of_pixel)
        tile, pixel = divmod(tile_pixel, pixels)
        yield _Step(cycle, index, column, line, ends, pixel, tile * of_pixel + at)
        if ends:
            ready = cycle + (program.last_pace if at == of_pixel - 1 else program.pace)
            sums += 1
        cycle += 1


def _reads(program: LayerProgram, step: _Step) -> Iterator[tuple[int, int, int]]:
    """Yield the read of a step, if not of padding: cycle, bank, address."""
    source, strides = program.source, program.loops.act_strides
    y = program.origin[0] + step.line * program.stride[0] + step.index[2]
    x = program.origin[1] + step.column * program.stride[1] + step.index[1]
    if 0 <= y < source.height and 0 <= x < source.width:
        way = sum(at * stride for at, stride in zip(step.index, strides, strict=True))
        bank = source.bank ^ (step.index[3] if source.split else 0)
        yield step.cycle + timing.WALK_DELAY, bank, program.act_base + way


def _operand_reads(program: LayerProgram, way: _Way, step: _Step) -> Iterator[tuple[int, int, int]]:
    """Yield the reads of a residual or gate for the sum that a step ends: cycle, bank, address."""
    walk = program.residual
    if walk is None or not step.ends:
        return
    width = program.layer.output.width
    y, x = divmod(step.pixel, width)
    pixel = walk.base + x * walk.column_step + y * (walk.row_step + (width - 1) * walk.column_step)
    for turn, chunk, _ in _turns(way, program, step.at):
        address = pixel + (chunk - walk.chunk_offset) // (way.plan.cols // way.plan.lanes)
        for digit in range(walk.digits):
            cycle = step.cycle + turn + 1 - (walk.digits - 1 - digit)
            yield cycle, walk.bank, address + digit * walk.plane

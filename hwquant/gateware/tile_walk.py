"""The drain's walk where weights are streamed: tile by tile, and pixel by pixel in each."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import In, Out

from hwquant.gateware.component import Component
from hwquant.gateware.fields import Fields
from hwquant.ir import MacLayer
from hwquant.scheduler.program import LayerProgram, Schedule


class TileWalk(Component):
    """Tells the place of a chunk: every pixel has the chunks that one tile of weights makes.

    Members
    -------
    layer, start : as the drain says
    chunk, turn_ends : the chunk that is drained, of all that a pixel of the output has; its end
    next_chunk : the one after it
    pixel_starts, pixel_ends : it is the first, the last that the tile makes of a pixel
    tile_ends : it is the last that the tile makes at all
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        chunk = range(max(2, *(program.chunks for program in schedule.layers)))
        super().__init__(
            {
                "layer": In(range(max(2, len(schedule.layers)))),
                "start": In(1),
                "chunk": In(chunk),
                "turn_ends": In(1),
                "next_chunk": Out(chunk),
                "pixel_starts": Out(1),
                "pixel_ends": Out(1),
                "tile_ends": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = Fields(m, self._schedule.layers, self.layer, self.start)
        last_chunk = fields.of("last_chunk", lambda p: max(0, p.chunks - 1))
        chunks = fields.of("chunks", self._chunks)
        last_pixel = fields.of("last_pixel", _last_pixel)

        first, last = Signal.like(self.chunk), Signal(len(self.chunk) + 1)  # of the tile
        pixel = Signal.like(last_pixel)
        m.d.comb += [
            self.pixel_starts.eq(self.chunk == first),
            self.pixel_ends.eq((self.chunk == last) | (self.chunk == last_chunk)),
            self.tile_ends.eq(self.pixel_ends & (pixel == last_pixel)),
            self.next_chunk.eq(Mux(self.pixel_ends & ~self.tile_ends, first, self.chunk + 1)),
        ]
        with m.If(fields.loaded):
            m.d.sync += [first.eq(0), last.eq(chunks - 1), pixel.eq(0)]
        with m.Elif(self.turn_ends & self.pixel_ends):
            m.d.sync += pixel.eq(pixel + 1)
            with m.If(self.tile_ends):
                m.d.sync += [first.eq(last + 1), last.eq(last + chunks), pixel.eq(0)]
        return m

    def _chunks(self, program: LayerProgram) -> int:
        """Return the chunks of a pixel that a tile makes; the last tile may make fewer."""
        of_group = self._schedule.plan.chunks
        return min(program.chunks, program.walk.row_groups // program.tiles * of_group)


def _last_pixel(program: LayerProgram) -> int:
    output = program.layer.output
    return output.height * output.width - 1 if isinstance(program.layer, MacLayer) else 0

"""How a layer moves along a row of its source: window by window, or column by column.

Of a depthwise layer a beat can use one column of the array a row: it multiplies one tap. Column by
column, the words of the columns before are still at hand (``gateware/tap_buffer.py``), so that a
beat takes a whole row of the kernel, each tap in a column of the array of its own.
"""

from dataclasses import dataclass

from hwquant.ir import MacLayer
from hwquant.scheduler.channel_walk import ChannelWalk
from hwquant.scheduler.layout import Layout
from hwquant.scheduler.placement import Placement
from hwquant.scheduler.plan import TAP_DELAY, Plan, tap_columns


@dataclass(frozen=True)
class RowWalk:
    """Read ``kernel`` columns from ``origin`` on, move on by ``stride``, and so on.

    With ``taps`` of one, each time for a sum. Else for a sum that takes this column and the
    ``taps - 1`` before; ``lead`` columns of a row come before the first sum, ``gap`` between two.
    What lies before the first of them is padding.

    The last column of a row may be padding, too. Then the walk ``turns``: it reads the next row's
    first column in its place, and after the last row one column more.
    """

    kernel: int
    stride: int
    origin: int
    taps: int = 1
    lead: int = 0
    gap: int = 0
    turns: bool = False

    def extent(self, width: int, height: int) -> tuple[int, int]:
        """Return columns and rows of the walk, for outputs of ``width`` columns, ``height`` rows.

        If it turns, the last row has one column.
        """
        columns = self.lead + (width - 1) * (self.gap + 1) + 1
        return (columns - 1, height + 1) if self.turns else (columns, height)

    def has_sum(self, column: int, row: int) -> bool:
        """Whether a sum ends in a column of the walk: of one that turns, the row's before, too."""
        is_turn = self.turns and row > 0 and column == 0
        return is_turn or (column >= self.lead and (column - self.lead) % (self.gap + 1) == 0)

    def fills_before(self, column: int, row: int) -> int:
        """Return the columns without a sum that come right before the sum of an output's pixel."""
        return self.gap if column else self.lead - (self.turns and row > 0)

    def fills(self, width: int, height: int) -> tuple[tuple[int, int], ...]:
        """Return columns without a sum that come before one, and how often in an image."""
        within = (self.gap, height * (width - 1))
        if self.turns:
            return (self.lead, 1), (self.lead - 1, height - 1), within
        return (self.lead, height), within


def row_walks(
    layer: MacLayer,
    source: Placement,
    output: Layout,
    channels: ChannelWalk,
    digits: int,
    plan: Plan,
) -> list[RowWalk]:
    """Return the walks that a layer whose input is not packed can take, the plain one first.

    Column by column a depthwise layer can be walked if rows find their channels in their own places
    of a word, the kernel's columns find columns of the array, and a word is not wanted again before
    it is in the buffer. ``digits`` are those that the layer reads of an activation.
    """
    plain = RowWalk(layer.kernel[1], layer.stride[1], -layer.pads[1])
    rows, taps = layer.kernel
    row_groups = 1 if plan.is_streamed else channels.row_groups  # of a tile of weights at least
    words = rows * digits * channels.count * row_groups
    if (
        plan.products == "dsp"  # whose rows share their activations
        or not layer.is_depthwise
        or layer.shared
        or not 2 <= taps <= len(tap_columns(plan.cols))
        or plan.rows < plan.cols
        or ((source.layout.positions - output.positions) % plan.cols).any()
        or words < TAP_DELAY
    ):
        return [plain]
    known = min(layer.pads[1], taps - 2)  # columns of padding that need not be read
    lead, gap = taps - 1 - known, layer.stride[1] - 1
    last = (layer.output.width - 1) * layer.stride[1] - layer.pads[1] + taps - 1
    turns = last >= source.width and layer.output.height > 1
    return [plain, RowWalk(1, 1, known - layer.pads[1], taps, lead, gap, turns)]

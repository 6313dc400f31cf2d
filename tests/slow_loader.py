"""The loader of windows, cycle by cycle: when rows are there, if the input stream never stalls."""

from collections.abc import Iterator

from hwquant.scheduler.plan import WINDOW_DELAY
from hwquant.scheduler.program import Schedule


class SlowLoader:
    """Starts at reset, ``lead_cycles`` before the first beat; of other inputs it does nothing."""

    def __init__(self, program: Schedule) -> None:
        self._loading, self._place = program.loading, program.input
        self._cycle, self._held, self._released = 0, 0, 0
        self._there: list[int] = []  # the cycles from which on rows are there
        self._work = self._frame() if program.input.ring else iter(())

    @property
    def rows(self) -> int:
        """Rows that are there in this cycle, and not read."""
        return sum(cycle <= self._cycle for cycle in self._there) - self._released

    def pass_cycle(self) -> None:
        next(self._work, None)
        self._cycle += 1

    def release(self, rows: int) -> None:
        """Free rows that were read in the cycle that has passed."""
        self._released += rows
        self._held -= rows

    def _frame(self) -> Iterator[None]:
        """Yield once a cycle; what follows the last one of a line belongs to the next cycle."""
        loading, place = self._loading, self._place
        (kernel_rows, kernel_columns), (down, along) = loading.kernel, loading.stride
        row_lines = [kernel_rows - 1 + row * down for row in range(place.height)]
        columns = [kernel_columns - 1 + column * along for column in range(place.width)]
        counting = [*row_lines[:-1], loading.lines - 1]
        for line in range(loading.lines):
            while line in row_lines and self._held == loading.ring_rows:
                yield
            self._held += line in row_lines
            for position in range(loading.positions):
                is_end = line in row_lines and position in columns
                for _ in range(place.groups * place.digits if is_end else 1):
                    yield
            if line in counting:
                self._there.append(self._cycle + WINDOW_DELAY)

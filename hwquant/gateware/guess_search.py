"""Staircases by a guess, then comparisons: tables, quotients and roots."""

from collections.abc import Sequence
from typing import assert_never

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed

from hwquant.gateware.component import Component
from hwquant.gateware.delay import delayed
from hwquant.gateware.guess import offset, quotient, risen, root, segment
from hwquant.gateware.unit_data import Rom, chosen, decode, joined, late, unit_ports
from hwquant.ir import Guess, PowerNewton, PowerPade, PowerTable
from hwquant.scheduler.plan import (
    COMPARE_DELAY,
    READ_DELAY,
    SATURATE_DELAY,
    guess_delay,
    rank_delay,
)


class GuessSearch(Component):
    """Saturates, guesses, looks up a rank and raises it by comparisons.

    The records are of one kind, and alike but for their constants.

    Members
    -------
    select : which of the records is this value's, if there are several

    Timing
    ------
    ``code`` follows ``value`` by ``plan.activation_delay`` cycles.
    """

    def __init__(self, records: Sequence[Guess], value_bits: int, code_bits: int) -> None:
        self._records = records
        super().__init__(unit_ports(len(records), value_bits, code_bits))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        records = self._records
        select = self.select if len(records) > 1 else None
        u = self._saturated(m, select)
        select = late(m, select, SATURATE_DELAY, "select_u")
        rank_bits = max(len(record.codes) - 1 for record in records).bit_length()
        rank = self._rank(m, u, rank_bits, select)
        u = delayed(m, u, rank_delay(records[0]), "u")
        select = late(m, select, rank_delay(records[0]), "select_rank")
        if records[0].window.stages:
            rank, select = self._compared(m, u, rank, rank_bits, select)
        m.d.comb += self.code.eq(decode(records, rank, select, len(self.code)))
        return m

    def _saturated(self, m: Module, select: Value | None) -> Value:
        """Return u, two cycles later: reset and set of the registers saturate, without logic.

        A register that is set must also begin so, or ECP5 has no flip-flop for it.
        """
        bits = self._records[0].value_bits
        lows = [record.low for record in self._records]
        above = self.value if not any(lows) else self.value - chosen(lows, select)
        low_end = Signal(bits, name="not_below", reset_less=True)
        over = Signal(name="over", reset_less=True)
        u = Signal(bits, name="saturated", init=(1 << bits) - 1, reset_less=True)
        distance = Signal(signed(max(len(above), bits + 1)), name="distance")
        m.d.comb += distance.eq(above)
        m.d.sync += [
            low_end.eq(distance),
            over.eq(~distance[-1] & distance[bits:].any()),
            u.eq(low_end),
        ]
        with m.If(distance[-1]):
            m.d.sync += low_end.eq(0)
        with m.If(over):
            m.d.sync += u.eq(~0)
        return u

    def _rank(self, m: Module, u: Value, rank_bits: int, select: Value | None) -> Value:
        """Return where the comparisons begin: the rank and what the first threshold is ahead."""
        records = self._records
        guess = self._guess(m, u, select)
        select = late(m, select, guess_delay(records[0]), "select_guess")
        ahead = max((1 << records[0].window.stages >> 1) - 1, 0)
        words = [[k + ahead for k in record.window.ranks] for record in records]
        index = guess if select is None else Cat(guess, select)
        tables = [record for record in records if isinstance(record, PowerTable)]
        slopes = [table.slopes for table in tables if table.slopes is not None]
        if not slopes:
            return Rom(m, "ranks", joined(words, len(guess)), rank_bits).read(index)
        words = [
            [rank | slope << rank_bits for rank, slope in zip(ranks, own.values, strict=True)]
            for ranks, own in zip(words, slopes, strict=True)
        ]
        width = rank_bits + slopes[0].bits
        word = Rom(m, "ranks", joined(words, len(guess)), width).read(index)
        x = delayed(m, offset(m, tables[0], slopes[0].offset_bits, u), READ_DELAY, "offset")
        return risen(m, word[:rank_bits], word[rank_bits:], x, slopes[0].shift)

    def _guess(self, m: Module, u: Value, select: Value | None) -> Value:
        record = self._records[0]
        match record:
            case PowerTable():
                return segment(m, record, u)
            case PowerPade():
                quotients = [r for r in self._records if isinstance(r, PowerPade)]
                return quotient(m, quotients, u, select)
            case PowerNewton():
                return root(m, record, u)
            case _:
                assert_never(record)

    def _compared(
        self, m: Module, u: Value, at: Value, rank_bits: int, select: Value | None
    ) -> tuple[Value, Value | None]:
        """Search from the window's middle; return the rank, and what selects the record there."""
        steps = [[t - r.low for t in r.window.steps.thresholds] for r in self._records]
        bits = self._records[0].value_bits
        rom = Rom(m, "thresholds", joined(steps, rank_bits), bits)
        for stage in reversed(range(self._records[0].window.stages)):
            threshold = rom.read(at if select is None else Cat(at, select))
            at = delayed(m, at, READ_DELAY, f"at_{stage}")
            u = delayed(m, u, READ_DELAY, f"u_{stage}")
            reached = Signal(name=f"reached_{stage}", reset_less=True)
            following = Signal(rank_bits, name=f"at_after_{stage}", reset_less=True)
            # from the middle of a window to that of its half; in the end to the rank itself; two
            # carry chains, a cycle each
            half = 1 << stage >> 1
            held = delayed(m, at, COMPARE_DELAY - 1, f"held_{stage}")
            m.d.sync += [
                reached.eq(u >= threshold),
                following.eq(held + Mux(reached, max(half, 1), -half)),
            ]
            at, u = following, delayed(m, u, COMPARE_DELAY, f"u_after_{stage}")
            select = late(m, select, READ_DELAY + COMPARE_DELAY, f"select_{stage}")
        return at, select

"""The plan that fits a device best, by its estimate."""

from bisect import bisect_right
from dataclasses import dataclass, replace

from hwquant.errors import DoesNotFit, UnsupportedModel
from hwquant.estimate import LUT_PERCENT, Estimate, estimate
from hwquant.estimate_blocks import weight_memory
from hwquant.fpga.block_ram import place_memory
from hwquant.fpga.devices import BLOCK_DEVICES, DEVICES, Block, Device, find_device, has_sprams
from hwquant.ir import QuantGraph
from hwquant.scheduler.plan import MAX_COLS, MAX_ROWS, Plan, Products, Weights, with_stream
from hwquant.scheduler.program import Schedule
from hwquant.scheduler.schedule import schedule


def choose_plan(
    graph: QuantGraph,
    device: str,
    *,
    rows: int | None = None,
    cols: int | None = None,
    lanes: int | None = None,
    weights: Weights = "rom",
    stream_bits: int | None = None,
    products: Products = "lut",
) -> Plan:
    """Return the plan of fewest cycles that fits ``device``; of equal ones that of fewest LUTs.

    Plans are as wide as high, twice or half as wide, but for the sizes that are given. See
    ``with_stream`` for ``stream_bits``.

    Raises
    ------
    DoesNotFit
        If none fits: what the one that comes closest lacks, how much of the weights it has room
        for, whether a plan with streamed weights fits, and the device of fewest LUTs that does.
    UnsupportedModel
        If no plan suits the network.
    """
    find_device(device)
    search = _Search(graph, _plans(device, products, rows, cols, lanes), stream_bits)
    found = search.fastest(device, weights)
    if found is None:
        raise search.refusal(device, weights)
    return found.plan


@dataclass(frozen=True)
class _Candidate:
    """A scheduled plan and its cells on a device."""

    plan: Plan
    program: Schedule
    estimate: Estimate

    @property
    def words(self) -> str:
        """The plan in words."""
        plan = self.plan
        return f"{plan.rows} x {plan.cols} MACs and {plan.lanes} lane{'s' * (plan.lanes > 1)}"

    @property
    def excess(self) -> float:
        """Largest share of a resource that the plan needs."""
        cells, target = self.estimate, find_device(self.estimate.device)
        return max(
            cells.luts / (target.luts * LUT_PERCENT / 100),
            cells.ffs / target.ffs,
            cells.brams / target.brams,
            cells.dsps / target.dsps if target.dsps else 0,
            cells.sprams / target.sprams if target.sprams else 0,
        )


class _Search:
    """The plans of a network on one device and, should none fit, on the others."""

    def __init__(self, graph: QuantGraph, plans: list[Plan], stream_bits: int | None) -> None:
        self._graph = graph
        self._plans = plans
        names = BLOCK_DEVICES if plans[0].products == "dsp" else DEVICES
        self._devices = sorted(names, key=lambda name: find_device(name).luts)
        self._stream_bits = stream_bits
        self._programs: dict[tuple[Plan, Weights, bool, Block | None], Schedule | None] = {}
        self._refused = "no plan suits the network"

    def fastest(self, device: str, weights: Weights) -> _Candidate | None:
        """Return what fits in fewest cycles, of equal ones that of fewest LUTs."""
        fitting = [found for found in self._candidates(device, weights) if found.estimate.fits]
        return min(fitting, key=lambda it: (it.program.cycles, it.estimate.luts), default=None)

    def refusal(self, device: str, weights: Weights) -> DoesNotFit | UnsupportedModel:
        """Say why nothing fits ``device``, and what would."""
        near = self._closest(device, weights)
        parts = [f"{device}: {self._refused if near is None else self._lack(near)}"]
        if weights == "rom" and (streamed := self.fastest(device, "stream")):
            parts.append(f"with --weights stream {streamed.words} fit")
        names = self._devices
        fitting = (found for name in names if (found := self.fastest(name, weights)))
        smallest = next(fitting, None)
        if smallest is not None:
            parts.append(f"the smallest device that does is {smallest.plan.device}")
            parts[-1] += f", with {smallest.words}"
        elif near is not None and device == names[-1]:
            parts.append("no other device does")
        elif largest := self._closest(names[-1], weights):
            parts.append(f"no device does: on {names[-1]}, the largest, {self._need(largest)}")
        is_too_large = near is not None or len(parts) > 1
        return (DoesNotFit if is_too_large else UnsupportedModel)("; ".join(parts))

    def _closest(self, device: str, weights: Weights) -> _Candidate | None:
        found = self._candidates(device, weights)
        return min(found, key=lambda candidate: candidate.excess, default=None)

    @staticmethod
    def _need(near: _Candidate) -> str:
        return f"{near.words} need {' and '.join(near.estimate.shortages)}"

    def _lack(self, near: _Candidate) -> str:
        """Say what is short and, if that is block RAM for weights alone, how many there may be."""
        cells, target = near.estimate, find_device(near.estimate.device)
        others = (cells.luts * 100 > target.luts * LUT_PERCENT, cells.ffs > target.ffs)
        if near.plan.is_streamed or any(others) or cells.brams <= target.brams:
            return self._need(near)
        share = _weights_that_fit(self._graph, near, target)
        return f"{self._need(near)}, which hold {int(100 * share)} % of the weights beside the rest"

    def _candidates(self, device: str, weights: Weights) -> list[_Candidate]:
        """Estimate the plans, but for those larger in everything than one of too many LUTs."""
        limit = find_device(device).luts * LUT_PERCENT // 100
        found: list[_Candidate] = []
        too_large: list[Plan] = []
        for plan in self._plans:
            if any(_is_within(other, plan) for other in too_large):
                continue
            program = self._scheduled(plan, device, weights)
            if program is None:
                continue
            cells = estimate(self._graph, program, device)
            found.append(_Candidate(replace(program.plan, device=device), program, cells))
            if cells.luts > limit:
                too_large.append(plan)
        return found

    def _scheduled(self, plan: Plan, device: str, weights: Weights) -> Schedule | None:
        """Schedule a plan once for all devices that are alike to a schedule."""
        there = replace(plan, device=device)
        key = plan, weights, has_sprams(device), there.block
        if key not in self._programs:
            if weights == "stream":
                there = with_stream(there, self._graph, self._stream_bits)
            try:
                self._programs[key] = schedule(self._graph, there)
            except UnsupportedModel as error:
                self._refused, self._programs[key] = str(error), None
        return self._programs[key]


def _is_within(small: Plan, large: Plan) -> bool:
    """Whether no size of a plan is larger than that of another."""
    sizes = ((plan.rows, plan.cols, plan.lanes) for plan in (small, large))
    return all(less <= more for less, more in zip(*sizes, strict=True))


def _weights_that_fit(graph: QuantGraph, near: _Candidate, target: Device) -> float:
    """Return the share of the weights for which a plan leaves block RAMs."""

    def halves(words: int) -> int:
        memories = weight_memory(graph, near.plan, words)
        return sum(place_memory(target, memory).half_brams for memory in memories)

    words = near.program.weight_words
    free = halves(words) - 2 * (near.estimate.brams - target.brams)
    return max(0, bisect_right(range(words + 1), free, key=halves) - 1) / words


def _plans(
    device: str, products: Products, rows: int | None, cols: int | None, lanes: int | None
) -> list[Plan]:
    """Return the plans to try; ``Plan`` checks what is given."""
    Plan(
        MAX_ROWS if rows is None else rows,
        MAX_COLS if cols is None else cols,
        1 if lanes is None else lanes,
        device,
        products=products,
    )
    plans: list[Plan] = []
    for r in _powers(1, MAX_ROWS) if rows is None else [rows]:
        for c in _powers(2, MAX_COLS) if cols is None else [cols]:
            if rows is None and cols is None and not r <= 2 * c <= 4 * r:
                continue
            choices = _powers(1, min(r, c // 2))
            fitting = [n for n in choices if lanes in (None, n)]
            plans += [Plan(r, c, n, device, products=products) for n in fitting]
    return plans


def _powers(low: int, high: int) -> list[int]:
    """Return the powers of two from ``low``, itself one, to ``high``."""
    return [low << at for at in range(high.bit_length()) if low << at <= high]

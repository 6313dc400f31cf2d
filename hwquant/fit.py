"""The plan that fits a device best, by its estimate."""

from hwquant.devices import Device, find_device
from hwquant.errors import DoesNotFit, UnsupportedModel
from hwquant.estimate import LUT_PERCENT, Estimate, estimate
from hwquant.ir import QuantGraph
from hwquant.plan import MAX_COLS, MAX_ROWS, Plan, Products, Weights, with_stream
from hwquant.schedule import schedule


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
        If none fits: what the one that comes closest lacks, and whether one with streamed weights
        does.
    UnsupportedModel
        If no plan suits the network.
    """
    target = find_device(device)
    fitting: list[tuple[int, int, Plan]] = []
    short: list[tuple[float, str]] = []
    refused = UnsupportedModel(f"{device}: no plan suits the network")
    for plan in _plans(device, products, rows, cols, lanes):
        if weights == "stream":
            plan = with_stream(plan, graph, stream_bits)
        try:
            program = schedule(graph, plan)
        except UnsupportedModel as error:
            refused = error
            continue
        found = estimate(graph, program, device)
        if found.fits:
            fitting.append((program.cycles, found.luts, plan))
        else:
            words = f"{plan.rows} x {plan.cols} MACs and {plan.lanes} lanes need "
            short.append((_excess(found, target), words + " and ".join(found.shortages)))
    if fitting:
        return min(fitting, key=lambda found: found[:2])[2]
    if short:
        is_rom = weights == "rom"
        other = _streamed(graph, device, products, rows, cols, lanes) if is_rom else ""
        raise DoesNotFit(f"{device}: {min(short)[1]}{other}")
    raise refused


def _streamed(
    graph: QuantGraph,
    device: str,
    products: Products,
    rows: int | None,
    cols: int | None,
    lanes: int | None,
) -> str:
    """Return what fits with streamed weights, as the end of a sentence; nothing if none does."""
    try:
        plan = choose_plan(
            graph, device, rows=rows, cols=cols, lanes=lanes, weights="stream", products=products
        )
    except (DoesNotFit, UnsupportedModel):
        return ""
    return f"; with --weights stream {plan.rows} x {plan.cols} MACs and {plan.lanes} lanes fit"


def _excess(found: Estimate, target: Device) -> float:
    """Largest share of a resource that a plan needs."""
    shares = (
        found.luts / (target.luts * LUT_PERCENT / 100),
        found.ffs / target.ffs,
        found.brams / target.brams,
        found.dsps / target.dsps if target.dsps else 0,
    )
    return max(shares)


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

"""The report as tables: in the terminal and as a web page."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean
from typing import Literal, get_args

import click
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from hwquant.report_sections import CostSection, LayerSection, Report, WeightsSection

_PAGE_COLUMNS = 100

Rows = Iterable[tuple[str, str]]
Cost = Literal["ace", "cycles"]
Part = Literal["macs", "requantize", "activation", "pool", "other"]

_PARTS: tuple[Part, ...] = get_args(Part)


def print_build(made: Report, directory: Path) -> None:
    """Print what ``gen`` wrote."""
    _print(_network(made), _plan(made), _estimate(made), _accuracy(made))
    click.echo(f"{directory}: verify it with hwquant verify, count it with hwquant synth")


def print_evaluation(made: Report) -> None:
    """Print what ``eval`` measured."""
    _print(_network(made), _accuracy(made))


def print_verification(made: Report) -> None:
    """Print what ``verify`` found."""
    _print(_verification(made))


def print_cells(made: Report) -> None:
    """Print what ``synth`` counted."""
    _print(_cells(made), _routing(made))


def print_report(made: Report) -> None:
    """Print all there is."""
    _print(*_everything(made))


def to_html(made: Report) -> str:
    """Return all there is as a web page."""
    console = Console(record=True, file=io.StringIO(), width=_PAGE_COLUMNS)
    for table in _everything(made):
        console.print(table)
    return console.export_html(inline_styles=True)


def _print(*tables: RenderableType) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PAGE_COLUMNS)
    for table in tables:
        console.print(table)


def _everything(made: Report) -> list[RenderableType]:
    parts: tuple[Callable[[Report], RenderableType], ...] = (
        _network,
        _weights,
        _plan,
        _layers,
        _ace,
        _cycles,
        _estimate,
        _cells,
        _routing,
        _accuracy,
        _verification,
        _tools,
    )
    return [part(made) for part in parts]


# ---------------------------------------------------------------- sections


def _network(made: Report) -> RenderableType:
    quantization = made["quantization"]
    exponents = _exponents(quantization["exponent"], quantization["act_exponent"])
    rows = [
        ("model", f"{made['model']} ({made['model_sha256'][:12]}…)"),
        ("weights, activations", f"{quantization['weight_bits']}, {quantization['act_bits']} bits"),
        ("first and last layer", f"{quantization['edge_bits']} bits"),
        *_extra(made),
        ("method", f"{quantization['method']}, {exponents}"),
        *_search(made),
        ("accumulate", _accumulate(made)),
        ("activation", quantization["activation"]),
        ("weights rounded", quantization["rounding"].replace("_", " ")),
        ("ranges", _ranges(made)),
        ("quantized in", f"{quantization['seconds']:.2f} s"),
    ]
    return _facts("Network", rows)


def _extra(made: Report) -> Rows:
    share = made["quantization"]["extra_macs"]
    return [("second digits elsewhere", f"for {share:.0%} more MACs at most")] if share else []


def _exponents(weights: float, acts: float) -> str:
    if weights == acts:
        return f"exponent {weights:.3f}"
    return f"exponent {weights:.3f} of weights, {acts:.3f} of activations"


def _search(made: Report) -> Rows:
    quantization = made["quantization"]
    if quantization["method"] != "power":
        return []
    norm = f", L{float(quantization['norm']):g}" if quantization["search"] == "weights" else ""
    return [
        ("levels", quantization["levels"]),
        ("exponent, if not given", f"of least error of {quantization['search']}{norm}"),
    ]


def _ranges(made: Report) -> str:
    quantization = made["quantization"]
    equalized = ", channels equalized" if quantization["equalize"] else ""
    return f"{quantization['ranges']}{equalized}"


def _accumulate(made: Report) -> str:
    quantization = made["quantization"]
    if quantization["accumulate"] == "product":
        return f"product table, {quantization['product_bits']} bits"
    return quantization["accumulate"]


def _weights(made: Report) -> RenderableType:
    sections = made["weights"]
    table = _columns(
        [section["layer"] for section in sections], "weights", "std", "skewness", "kurtosis"
    )
    for section in sections:
        table.add_row(section["layer"], f"{section['count']:,}", *_moments([section]))
    if sections:
        table.add_section()
        table.add_row("mean of layers", "", *_moments(sections))
    return _titled("Distribution of float weights (normal: skewness 0, kurtosis 3)", table)


def _moments(sections: list[WeightsSection]) -> tuple[str, str, str]:
    return (
        f"{mean(section['std'] for section in sections):.4g}",
        f"{mean(section['skewness'] for section in sections):.3f}",
        f"{mean(section['kurtosis'] for section in sections):.3f}",
    )


def _plan(made: Report) -> RenderableType:
    plan = made["plan"]
    if plan is None or made["utilisation"] is None:
        return _absent("Plan", "hwquant gen")
    return _facts(
        "Plan",
        [
            ("array", f"{plan['rows']} rows x {plan['cols']} columns, {plan['lanes']} lanes"),
            *([("products", "in DSP blocks")] if plan.get("products") == "dsp" else []),
            ("MACs a frame", f"{made['macs']:,}"),
            ("cycles a frame", f"{made['cycles']:,}"),
            ("utilisation", f"{made['utilisation']:.1%} of {plan['macs_per_cycle']} MACs a cycle"),
            *_weight_stream(made),
        ],
    )


def _weight_stream(made: Report) -> Rows:
    plan, stream, cycles = made["plan"], made["weight_stream"], made["cycles"]
    if plan is None or stream is None or not cycles:
        return []
    needed = stream["bits"] / cycles
    return [
        ("weights a frame", f"{stream['beats']:,} beats of {plan['stream_bits']} bits"),
        ("needed", f"{needed:.1f} bits a cycle on average"),
        ("waits for weights", f"{stream['wait_cycles']:,} cycles a frame"),
    ]


def _layers(made: Report) -> RenderableType:
    plan, layers = made["plan"], made["layers"]
    if plan is None or layers is None:
        return _absent("Layers", "hwquant gen")
    names = [layer["name"] for layer in layers]
    columns = ("kind", "MACs", "cycles", "simulated", "used", "W bits", "A bits")
    table = _columns(names, *columns)
    verified = made["verify"]
    simulated = (verified["layer_cycles"] if verified else None) or [None] * len(layers)
    for layer, seen in zip(layers, simulated, strict=True):
        table.add_row(*_layer(layer, seen, plan["macs_per_cycle"]))
    return _titled("Layers", table)


def _layer(layer: LayerSection, simulated: int | None, macs_per_cycle: int) -> tuple[str, ...]:
    share = layer["macs"] / (max(1, layer["cycles"]) * macs_per_cycle)
    return (
        layer["name"],
        layer["kind"],
        f"{layer['macs']:,}" if layer["macs"] else "",
        f"{layer['cycles']:,}",
        "" if simulated is None else f"{simulated:,}",
        f"{share:.1%}" if layer["macs"] else "",
        str(layer["weight_bits"] or ""),
        str(layer["act_bits"]),
    )


def _ace(made: Report) -> RenderableType:
    return _costs(made, "Arithmetic computation effort, and its shares", "ace")


def _cycles(made: Report) -> RenderableType:
    return _costs(made, "Cycles, and their shares", "cycles")


def _costs(made: Report, title: str, cost: Cost) -> RenderableType:
    layers, frame = made["layers"], made["effort"]
    if layers is None or frame is None:
        return _absent(title, "hwquant gen")
    parts: list[Part] = [part for part in _PARTS if frame[cost][part]]
    table = _columns([layer["name"] for layer in layers], cost, *parts)
    for layer in layers:
        if layer["effort"][cost]["total"]:
            table.add_row(layer["name"], *_shares(layer["effort"][cost], parts))
    table.add_section()
    table.add_row("frame", *_shares(frame[cost], parts))
    return _titled(title, table)


def _shares(cost: CostSection, parts: list[Part]) -> list[str]:
    shares = [f"{cost[part] / cost['total']:.2%}" if cost[part] else "" for part in parts]
    return [f"{cost['total']:,}", *shares]


def _estimate(made: Report) -> RenderableType:
    estimate = made["estimate"]
    if estimate is None:
        return _absent("Estimate", "hwquant gen")
    rows = [(name, f"{estimate[name]:,}") for name in ("luts", "ffs", "brams", "dsps", "sprams")]
    rows.append(("fits", "yes" if estimate["fits"] else f"no: {', '.join(estimate['shortages'])}"))
    return _facts(f"Estimate before synthesis, {estimate['device']}", rows)


def _cells(made: Report) -> RenderableType:
    cells = made["synth"]
    if cells is None:
        return _absent("Cells", "hwquant synth")
    names = ("luts", "carries", "ffs", "brams", "dsps", "sprams")
    rows = [(name, f"{cells[name]:,}") for name in names]
    array = cells["mac_array"]
    if array is not None:
        rows.append(("MAC array alone", f"{array['luts']:,} LUTs"))
        rows.append(("LUTs per MAC", f"{array['luts_per_mac']:.1f}"))
    return _facts(f"Cells after synthesis, {cells['device']}, {cells['tool']}", rows)


def _routing(made: Report) -> RenderableType:
    routed = made["pnr"]
    if routed is None:
        return _absent("Place and route", "hwquant synth --pnr")
    seeds = ", ".join(f"{fmax:.1f}" for fmax in routed["fmax_mhz_seeds"])
    rows = [
        ("Fmax", f"{routed['fmax_mhz']:.1f} MHz, median of {seeds}"),
        ("logic cells", f"{routed['logic_cells']:,}"),
    ]
    if made["cycles"]:
        rows.append(("frames a second", f"{1e6 * routed['fmax_mhz'] / made['cycles']:,.0f}"))
    return _facts(f"Place and route, {routed['device']}, {routed['tool']}", rows)


def _accuracy(made: Report) -> RenderableType:
    accuracy = made["accuracy"]
    if accuracy is None:
        return _absent("Accuracy", "hwquant eval --data X.npz --build DIR")
    return _facts(
        f"Accuracy on {accuracy['n']} images of {accuracy['data']}",
        [
            ("float top-1", f"{accuracy['float_top1']:.2%}"),
            ("quantized top-1", f"{accuracy['top1']:.2%}"),
            ("same answer", f"{accuracy['agreement']:.2%}"),
        ],
    )


def _verification(made: Report) -> RenderableType:
    verified = made["verify"]
    if verified is None:
        return _absent("Verification", "hwquant verify")
    mismatches = verified["mismatches"]
    rows = [
        ("simulated", "netlist" if verified["netlist"] else "RTL"),
        ("frames", f"{verified['frames']} of {verified['data']}"),
        ("values that differ", "no frame came out" if mismatches is None else f"{mismatches:,}"),
    ]
    if verified["cycles"] is not None:
        rows.append(("cycles a frame", f"{verified['cycles']:,}"))
    if verified["stalls"] is not None:
        rows.append(("random stalls", f"seed {verified['stalls']}"))
    rows.append(("verdict", verified["failure"] or "equal to golden"))
    return _facts(f"Verification, {verified['simulator']}", rows)


def _tools(made: Report) -> RenderableType:
    return _facts("Tools", [("hwquant", made["hwquant"]), *made["tools"].items()])


def _columns(layers: list[str], *names: str) -> Table:
    """Start a table of layers; all columns but a kind's are numbers."""
    table = Table()
    table.add_column("layer", min_width=max(map(len, layers), default=0))
    for name in names:
        table.add_column(name, justify="left" if name == "kind" else "right")
    return table


def _facts(title: str, rows: Rows) -> RenderableType:
    table = Table(show_header=False)
    table.add_column(style="dim")
    table.add_column()
    for name, value in rows:
        table.add_row(name, value)
    return _titled(title, table)


def _titled(title: str, table: Table) -> RenderableType:
    return Group(Text(title, style="bold"), table)


def _absent(title: str, verb: str) -> Text:
    return Text(f"{title}: not yet; {verb}", style="dim")

"""Draw area over error of activation units, and the Pareto front, from tables of bench_units.py.

python scripts/bench_units.py --bits 4 8 --max-code-error 0 1 2 > units.md
python scripts/plot_units.py units.md    # docs/figures/units.svg; pip install 'hwquant[plots]'
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

FIGURE = Path("docs/figures/units.svg")
MARKERS = {"tree": "v", "thresholds": "s", "table": "o", "pade": "^", "newton": "D"}


@dataclass(frozen=True)
class Point:
    function: str
    bits: int
    kind: str
    error: int
    luts: int


def read(files: list[Path]) -> list[Point]:
    points: list[Point] = []
    head: list[str] = []
    for line in (line for file in files for line in file.read_text().splitlines()):
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if cells[0] == "function":
            head = cells
        elif line.startswith("| ") and head:
            row = dict(zip(head, cells, strict=True))
            luts = next(cell for name, cell in row.items() if name.startswith("ECP5 LUT"))
            numbers = (int(row["largest error"]), int(luts.split()[0]))
            points.append(Point(row["function"], int(row["bits"]), row["kind"], *numbers))
    return points


def front(points: list[Point]) -> list[Point]:
    """Return the points to which no other has at most the error and fewer LUTs."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.error, p.luts)):
        if not best or point.luts < best[-1].luts:
            best.append(point)
    return best


def draw(points: list[Point], axes: Any) -> None:
    for kind, marker in MARKERS.items():
        own = [p for p in points if p.kind == kind]
        if own:
            axes.plot([p.luts for p in own], [p.error for p in own], marker, label=kind)
    best = front(points)
    axes.plot([p.luts for p in best], [p.error for p in best], "k--", linewidth=0.8, label="front")
    axes.set(xscale="log", xlabel="LUT4 (ECP5)", yticks=range(max(p.error for p in points) + 1))
    axes.set(ylabel="largest error in codes", title=f"{points[0].function}, {points[0].bits} bits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path, nargs="+")
    points = read(parser.parse_args().tables)
    mpl.rcParams.update({"svg.hashsalt": "", "svg.fonttype": "none", "font.size": 8})
    panels = sorted({(p.function, p.bits) for p in points})
    figure = Figure((8, 2.4 * ((len(panels) + 1) // 2)), layout="constrained")
    grid = figure.subplots((len(panels) + 1) // 2, 2, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        draw([p for p in points if (p.function, p.bits) == panel], axes)
    grid.flat[0].legend()
    figure.savefig(FIGURE, metadata={"Date": None})


if __name__ == "__main__":
    main()

"""``hwquant report``: everything that is known about a build directory."""

from pathlib import Path

import click

from hwquant import report
from hwquant.commands import tables, terminal
from hwquant.commands.options import directory_argument, json_option


@click.command(name="report")
@directory_argument
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the report as a web page too.",
)
@json_option
def show(directory: Path, html: Path | None, as_json: bool) -> None:
    """Print what gen, eval, verify and synth found out about the build directory DIR."""
    made = report.read(directory)
    if html is not None:
        html.write_text(tables.to_html(made))
        terminal.say(f"wrote {html}")
    if as_json:
        terminal.print_json(made)
    else:
        tables.print_report(made)

"""What the verbs print: results on stdout, progress and messages on stderr."""

import contextlib
import json
from collections.abc import Callable, Generator, Mapping
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from hwquant.accuracy import Progress as AccuracyProgress


def say(sentence: str) -> None:
    """Tell the user something, on stderr."""
    click.echo(sentence, err=True)


def print_json(content: Mapping[str, Any]) -> None:
    """Print one JSON object, and nothing else, on stdout."""
    click.echo(json.dumps(content, indent=2))


@contextlib.contextmanager
def bar(title: str, total: int) -> Generator[Callable[[int], None]]:
    """Show a progress bar on stderr; the function yielded advances it."""
    with _progress() as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.advance(task, done)


@contextlib.contextmanager
def accuracy_bars(total: int) -> Generator[AccuracyProgress]:
    """Show a bar for golden and one for float, on stderr."""
    with _progress() as progress:
        tasks = {side: progress.add_task(side, total=total) for side in ("golden", "float")}
        yield lambda side, done: progress.advance(tasks[side], done)


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )

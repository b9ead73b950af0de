"""What the commands of both halves share: options, their parsing, and printing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
import yaml

from graphclust.data.reference import parse_value
from graphclust.graph import DivergenceError, InputError

Set = Annotated[list[str] | None, typer.Option("--set", help="A parameter, a=b; repeatable.", metavar="A=B")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]


def params(pairs: list[str] | None) -> dict[str, Any]:
    """The values of a repeated ``a=b`` option; InputError for one that is not of that form."""
    values = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"--set {pair!r} is not of the form a=b")
        try:
            values[key] = parse_value(value)
        except yaml.YAMLError as e:
            raise InputError(f"--set {pair!r}: the value is not YAML") from e
    return values


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Bad input, and a place that cannot be written, end with one line on stderr and exit code 2, training that
    diverges with one and code 1; anything else is a bug and shows itself."""
    from pydantic import ValidationError

    from graphclust.atomic import NOT_WRITABLE
    from graphclust.config_file import problems

    try:
        yield
    except InputError as e:
        told, code = str(e), 2
    except ValidationError as e:
        told, code = problems(e), 2
    except DivergenceError as e:
        told, code = str(e), 1
    except OSError as e:
        if e.errno not in NOT_WRITABLE:
            raise
        place = e.filename2 or e.filename
        told, code = f"{f'{place}: ' if place else ''}{e.strerror}; give a place that can be written", 2
    else:
        return
    typer.echo(f"error: {told}", err=True)
    sys.exit(code)


def emit(document: Any, as_json: bool, show: Callable[[], None]) -> None:
    """Print ``document`` as JSON and nothing else, or show it to a person."""
    if as_json:
        typer.echo(json.dumps(document, indent=1, default=str))
    else:
        show()


def cell(value: Any) -> str:
    """A value in a table: nothing for None, yes or no for a bool."""
    return "" if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def print_rows(columns: list[str], rows: list[list[str]]) -> None:
    """Print a table; its first column, by which rows are called, is never cut."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Column, Table

    heads = [Column(name, no_wrap=not i, overflow="fold") for i, name in enumerate(columns)]
    table = Table(*heads, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(markup=False).print(table)

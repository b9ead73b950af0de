"""Tables of text: numbers with their spread, and one table in every form: terminal, markdown, LaTeX, CSV."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from graphclust.runs.stats import aggregate, counts


@dataclass(frozen=True)
class Cell:
    """One cell of a table: its text, and whether it holds the column's best value."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table ready to be written in any form."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]


def distinct_names(names: Sequence[str], places: Sequence[str], settings: Sequence[Mapping[str, str]]) -> list[str]:
    """The names, where one stands for several settings in one place with those that differ: ``a (k=1)``, ``a (k=2)``.

    So nothing unlike is averaged. A setting that differs between places only is not mentioned.
    """
    held: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for name, place, setting in zip(names, places, settings, strict=True):
        held.setdefault((name, place), []).append(setting)
    differing: dict[str, list[str]] = {}
    for (name, _), together in held.items():
        keys = dict.fromkeys(k for s in together for k in s)
        found = differing.setdefault(name, [])
        found += [k for k in keys if k not in found and len({s.get(k) for s in together}) > 1]

    def suffix(name: str, setting: Mapping[str, str]) -> str:
        parts = [f"{k}={setting.get(k)}" for k in differing[name]]
        return f" ({', '.join(parts)})" if parts else ""

    return [name + suffix(name, setting) for name, setting in zip(names, settings, strict=True)]


def spread(mean: float, std: float, digits: int = 3) -> str:
    """``0.712 ± 0.034``; without the second part when there is one run, a dash when there is none."""
    if np.isnan(mean):
        return "–"
    return f"{mean:.{digits}f}" if np.isnan(std) else f"{mean:.{digits}f} ± {std:.{digits}f}"


def significant_digits(value: float) -> str:
    """Three significant digits without an exponent: ``0.0123``, ``4.56``, ``1230``."""
    return "–" if np.isnan(value) else f"{float(f'{value:.3g}'):,.10g}"


def metric_cells(table: pd.DataFrame, column: str, higher: bool, digits: int = 3) -> list[Cell]:
    """Mean and spread of ``column`` for every row of a :func:`graphclust.runs.stats.aggregate` table.

    The best are marked: the largest when ``higher``, else the smallest.
    """
    means, stds = table[(column, "mean")], table[(column, "std")]
    best = means.max() if higher else means.min()
    several = means.notna().sum() > 1  # a method alone is best at nothing
    return [Cell(spread(m, s, digits), bool(several and round(m, digits) == round(best, digits)))
            for m, s in zip(means, stds, strict=True)]


def runs_text(done: int, total: int) -> str:
    """``5`` when all runs finished, else ``3 of 5 finished``."""
    return str(total) if done == total else f"{done} of {total} finished"


def terminal_tables(tables: Iterable[Table], short: Mapping[str, str]) -> list[RichTable]:
    """One rich table each; the best value of each metric is bold; ``short`` holds headings for a narrow terminal."""
    out = []
    for table in tables:
        rich = RichTable(title=table.title, title_justify="left", box=SIMPLE_HEAD, padding=0)
        for i, heading in enumerate(table.columns):
            rich.add_column(short.get(heading, heading), justify="right" if i else "left", overflow="fold")
        for row in table.rows:
            texts = [row[0].text, *(_narrow(cell.text) for cell in row[1:])]
            rich.add_row(*(Text(t, style="bold" if c.best else "") for t, c in zip(texts, row, strict=True)))
        out.append(rich)
    return out


def _narrow(text: str) -> str:
    """The spread and the source of k go under the mean: eleven columns then fit into 80 characters."""
    for wide, narrow in ((" ± 0.", "\n±."), (" ± ", "\n±"), (" (", "\n"), (")", ""), (" finished", "")):
        text = text.replace(wide, narrow)
    return text


def to_markdown(tables: Iterable[Table], note: str) -> str:
    """The tables in GitHub's markdown, with ``note`` below."""
    parts = []
    for table in tables:
        cells = [[f"**{c.text}**" if c.best else c.text.replace("|", "\\|") for c in row] for row in table.rows]
        body = pd.DataFrame(cells, columns=table.columns).to_markdown(index=False, disable_numparse=True)
        parts.append(f"### {table.title}\n\n{body}\n")
    return "\n".join([*parts, note]) + "\n"


def to_latex(tables: Iterable[Table], note: str) -> str:
    """The tables in LaTeX; they need the package booktabs."""
    parts = []
    for table in tables:
        text = pd.DataFrame([[c.text for c in row] for row in table.rows], columns=table.columns)
        bold = np.array([["textbf:--rwrap" if c.best else "" for c in row] for row in table.rows])
        style = text.style.format(escape="latex").apply(lambda _, bold=bold: bold, axis=None).hide(axis="index")
        layout = "l" + "r" * (len(table.columns) - 1)
        caption = table.title.translate({ord(c): f"\\{c}" for c in "_%&#$"})
        parts.append(style.to_latex(hrules=True, column_format=layout, caption=caption, position="ht",
                                    position_float="centering"))
    head = "% needs \\usepackage{booktabs}\n% " + note.replace("±", "+-") + "\n"
    return head + "\n".join(parts).replace("±", r"$\pm$").replace("–", "--")


def to_csv(df: pd.DataFrame, numbers: list[str]) -> str:
    """Full precision: one line per data set and method, columns ``<number>_mean``, ``_std``, ``_n``."""
    table = aggregate(df, numbers)
    table.columns = [f"{column}_{statistic}" for column, statistic in table.columns]
    return counts(df).join(table).to_csv()

"""Text tables: edge lists, node lists, label files. They are sniffed here and parsed by pandas' C engine."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graphclust.graph import InputError

COMMENT = (b"#", b"%")
_CANONICAL_INTEGER = re.compile(r"0|-?[1-9]\d*")


@dataclass(frozen=True)
class Table:
    """A parsed table: ``columns`` as strings when it has a header; ``text`` kept to parse a column again as text."""

    path: Path
    frame: pd.DataFrame
    has_header: bool
    text: bytes
    separator: str

    def column(self, which: Any, what: str) -> pd.Series:
        """A column by name or 0-based number; InputError names ``what`` (the parameter) and the columns there are."""
        if isinstance(which, int) and not isinstance(which, bool) and 0 <= which < self.frame.shape[1]:
            return self.frame.iloc[:, which]
        if which in self.frame.columns and self.has_header:
            return self.frame[which]
        last = self.frame.shape[1] - 1
        there = ", ".join(map(str, self.frame.columns)) if self.has_header else f"0..{last}, no header"
        raise InputError(f"{self.path} has no column {which!r} ({what}); its columns: {there}")

    def named(self, names: Iterable[str]) -> int | None:
        """The position of the first of ``names`` (lower-case) that is a column, None when none of them is."""
        lower = [str(c).lower() for c in self.frame.columns]
        return next((lower.index(name) for name in names if name in lower), None)

    def number(self, series: pd.Series) -> int:
        """The position of a column of this table."""
        return next(i for i in range(self.frame.shape[1]) if self.frame.iloc[:, i].name == series.name)

    def ids(self, which: list[int]) -> list[np.ndarray]:
        """Columns of ids: int64 when all of them are plain integers, else all as they are written."""
        columns = [self.frame.iloc[:, i] for i in which]
        whole = all(c.dtype.kind in "iu" and c.dtype != np.uint64 for c in columns)
        if whole and not _padded(self.text):
            return [c.to_numpy(dtype=np.int64) for c in columns]
        frame = _parse(self.text, self.separator, self.has_header, self.path, dtype=str)
        found = [frame.iloc[:, i].to_numpy(dtype=object) for i in which]
        for column in found:
            empty = np.flatnonzero((column == "") | pd.isna(column))
            if len(empty):
                raise InputError(f"{self.path}: row {empty[0] + 1} of the data has an empty node id")
        if whole:  # what is padded may be another column, such as one of dates
            integers = [integers_if_all(column) for column in found]
            return integers if all(i.dtype.kind == "i" for i in integers) else found
        return found


def read_table(path: Path, header: bool | None, known: Iterable[str] = ()) -> Table:
    """Read a comma-, tab-, semicolon- or space-separated file, .gz or not; whole-line comments (#, %) are skipped.

    Parameters
    ----------
    header : whether the first line names the columns; None: it does when it holds one of ``known``, or when it has
        no number where the second line has one
    known : lower-case column names that only a header would hold

    Raises
    ------
    InputError
        A missing, unreadable, truncated or empty file, rows of different length.
    """
    text = _without_comments(read_bytes(path))
    first, second = ([*text.split(b"\n", 2), b"", b""])[:2]
    if not first.strip():
        raise InputError(f"{path} is empty: it has no line but comments")
    try:
        line, after = first.decode().strip("\r"), second.decode().strip("\r")
    except UnicodeDecodeError as e:
        raise InputError(f"{path} is no UTF-8 text ({e.reason})") from e
    separator = next((s for s in ("\t", ",", ";") if s in line), r"\s+")
    fields, below = (re.split(separator, s.strip()) for s in (line, after))
    if header is None:
        names = {f.strip().strip('"').lower() for f in fields}
        header = not names.isdisjoint(known) or any(
            _is_number(b) and not _is_number(a) for a, b in zip(fields, below, strict=False)
        )
    return Table(path, _parse(text, separator, header, path), header, text, separator)


def read_bytes(path: Path) -> bytes:
    """The content of a file, decompressed when it is gzip; InputError when it is missing, unreadable or truncated."""
    try:
        content = path.read_bytes()
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}") from e
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise InputError(f"{path} is a damaged or truncated gzip file ({e})") from e


def integers_if_all(ids: np.ndarray) -> np.ndarray:
    """Text ids as int64 when every one is an integer written plainly, so that nothing is lost."""
    if len(ids) and all(_CANONICAL_INTEGER.fullmatch(i) and len(i) < 19 for i in ids):
        return ids.astype(np.int64)
    return ids


def _parse(text: bytes, separator: str, header: bool, path: Path, dtype: Any = None) -> pd.DataFrame:
    try:
        frame = pd.read_csv(
            io.BytesIO(text), sep=separator, header=0 if header else None, dtype=dtype, low_memory=False,
            index_col=False, keep_default_na=False, skipinitialspace=True,
            na_values=[] if dtype else ["", "nan", "NaN"],
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as e:
        raise InputError(f"{path} cannot be read as a table: {str(e).strip()}") from e
    frame.columns = [str(c).strip() if header else i for i, c in enumerate(frame.columns)]
    return frame


def _without_comments(content: bytes) -> bytes:
    content = content.removeprefix(b"\xef\xbb\xbf")
    if b"\r\n" in content:
        content = content.replace(b"\r\n", b"\n")
    while content.startswith((*COMMENT, b"\n")):
        content = content.partition(b"\n")[2]
    if any(b"\n" + mark in content for mark in COMMENT):
        return b"\n".join(line for line in content.split(b"\n") if not line.startswith(COMMENT))
    return content


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _padded(text: bytes) -> bool:
    """Whether any field begins with 0 and another digit: read as integers, ids such as 007 and 7 would be one."""
    raw = np.frombuffer(text, dtype=np.uint8)
    zero = np.flatnonzero(raw[:-1] == ord("0"))
    follows = raw[zero + 1]
    zero = zero[(follows >= ord("0")) & (follows <= ord("9"))]
    before = raw[np.maximum(zero - 1, 0)]
    starts = (zero == 0) | np.isin(before, np.frombuffer(b'\n\t ,;"-', dtype=np.uint8))
    return bool(starts.any())

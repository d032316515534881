"""Rows of a CSV in, or steps: a column of numbers is a feature, one of words a feature of 0 or 1 for each word that the model knows."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError, MalformedError


def read(file: Path, names: Sequence[str], shape: tuple[int, ...]) -> tuple[NDArray[np.float64], list[int]]:
    """Reads raw values [n, features], and the line of each row; columns that the model does not take are passed over.

    Args:
        file: with a header, UTF-8.
        names: of the model's features, as its profile has them ("age", "ward=south").
        shape: of one sample.

    Raises:
        BadShapeError: the model takes no vectors, its features have no names, or a column is missing.
        MalformedError: there is no row, a row has more cells than the header or a column that is needed is there twice, or a cell is no
            number or no word that the model knows.
    """
    if len(shape) != 1 or not names:
        raise BadShapeError(f"{file}: rows of a table are for models with named features; this one takes {list(shape)}")
    header, rows = _opened(file)
    return _features(file, names, header, rows), [line for line, _ in rows]


def read_sequence(file: Path, names: Sequence[str], features: int) -> NDArray[np.float64]:
    """Reads a sequence [features, steps], a row for each step.

    Args:
        file: with a header, UTF-8.
        names: of the model's features; none: the columns are the features, in their order.
        features: of each step.

    Raises:
        BadShapeError: a column is missing, or there are others than the features.
        MalformedError: see ``read``; or there is no header.
    """
    header, rows = _opened(file)
    if not names and all(_is_number(name) for name in header):
        raise MalformedError(
            f"{file} has numbers in its first line, which is the header: put names of the columns there"
        )
    if not names and len(set(header)) != features:
        raise BadShapeError(
            f"{file} has {len(set(header))} columns with names of their own; the model takes {features}, and a row for each step"
        )
    return _features(file, names or header, header, rows).T


Row = dict[str, str | None]


def _opened(file: Path) -> tuple[list[str], list[tuple[int, Row]]]:
    """Names of the columns; each row with the number of its line. Raises MalformedError."""
    with file.open(newline="", encoding="utf-8-sig") as opened:
        lines = csv.DictReader(opened)
        header = list(lines.fieldnames or ())
        rows = [(lines.line_num, row) for row in lines]
    if not rows:
        raise MalformedError(f"{file} has no row below its header")
    # Empty cells behind the last column are none.
    if wide := next((line for line, row in rows if any(row.get(None) or ())), None):
        raise MalformedError(
            f"{file}, line {wide}: more cells than the header has columns ({len(header)}): write numbers with a point, "
            "and put words with a comma into quotes"
        )
    return header, rows


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _features(
    file: Path, names: Sequence[str], header: Sequence[str], rows: Sequence[tuple[int, Row]]
) -> NDArray[np.float64]:
    """Raw values [rows, features]."""
    words: dict[str, list[str]] = {}
    for name in names:
        column, _, word = name.rpartition("=")
        if name not in header and column in header:
            words.setdefault(column, []).append(word)
        elif name not in header:
            raise BadShapeError(f"{file} has no column {column or name!r}; the model takes {', '.join(names)}")
    if twice := next((name for name in (*names, *words) if header.count(name) > 1), None):
        raise MalformedError(f"{file} has the column {twice} {header.count(twice)} times: leave the others out")
    return np.array([_values(file, line, row, names, words) for line, row in rows])


def _values(file: Path, line: int, row: Row, names: Sequence[str], words: dict[str, list[str]]) -> list[float]:
    for column, known in words.items():
        if row[column] not in known:
            raise MalformedError(
                f"{file}, line {line}: {column} is {row[column]!r}; the model knows {', '.join(known)}"
            )
    values = []
    for name in names:
        column, _, word = name.rpartition("=")
        if name in row:
            try:
                values.append(float(row[name] or ""))
            except ValueError:
                raise MalformedError(f"{file}, line {line}: {name} is {row[name]!r}, which is no number") from None
        else:
            values.append(float(row[column] == word))
    return values

"""Rows of parquet files, read in bounded memory, and which row groups make a part of work.

Knows nothing about what a row holds.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from utils.reading.documents import BadLine, Row, Rows

BATCH_ROWS = 256


def group_runs(path: Path, piece_bytes: int) -> Iterator[tuple[tuple[int, int], int, int]]:
    """Yield runs of row groups of about `piece_bytes`, in order, or nothing for a damaged file.

    Each is (first group and the one after the last, number of its first row, bytes unpacked).
    """
    import pyarrow
    from pyarrow.parquet import read_metadata

    try:
        metadata = read_metadata(path)
    except (pyarrow.ArrowException, OSError):
        return
    begin, first, rows, size = 0, 1, 0, 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        rows += group.num_rows
        size += group.total_byte_size
        if size >= piece_bytes or number + 1 == metadata.num_row_groups:
            yield (begin, number + 1), first, size
            begin, first, rows, size = number + 1, first + rows, 0, 0


def parquet_rows(
    source: str | BinaryIO,
    name: str,
    needed: str | None,
    groups: tuple[int, int] | None = None,
    first: int = 1,
) -> Rows:
    """Yield all rows, or those of some row groups; of a needed column only that and `id`.

    `first` is the number of the first row. Of a damaged file the rows before the damage are read.

    Raises:
        OSError: the file cannot be read.
    """
    import pyarrow
    from pyarrow.parquet import ParquetFile

    number = first - 1
    try:
        with ParquetFile(source) as file:
            names = file.schema_arrow.names
            if needed is not None and needed not in names:
                if first == 1:
                    reason = f"no column {needed!r} (columns: {', '.join(names[:8])})"
                    yield BadLine(name, 0, reason)
                return
            columns = [one for one in (needed, "id") if one in names] if needed else None
            chosen = range(*groups) if groups else None
            for batch in file.iter_batches(BATCH_ROWS, row_groups=chosen, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield Row(name, number, row)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        # The last two: a date that Python does not know.
        if isinstance(error, OSError) and error.errno:
            raise
        reason = " ".join(str(error).split())[:120]
        yield BadLine(name, number, f"damaged parquet data ({reason})")

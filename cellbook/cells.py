"""Single cells as one object: an image stack, one table row a cell, and what the channels mean.

Every screen of the book becomes a `CellSet` before anything else sees it. On disk it is a folder of three files,
``images.npy``, ``cells.parquet`` and ``cellset.json``; opening one reads only the last.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cellbook import files
from cellbook.errors import CellbookError

FORMAT = 1
IMAGES, TABLE, HEADER = "images.npy", "cells.parquet", "cellset.json"
_CHUNK_BYTES = 1 << 26


@dataclass(frozen=True, eq=False, repr=False)
class CellSet:
    """Images of single cells with their labels.

    Parameters
    ----------
    images : numpy.ndarray
        (N, C, H, W), uint8 or uint16; an array or a memory map.
    table : pandas.DataFrame
        N rows in the order of `images`; columns ``Metadata_*``, and ``truth_*`` for simulated cells. Compounds without
        a ``Metadata_concentration`` get one dose, 0.
    channels : tuple of str
        C names; the order of the project is ("DNA", "Tubulin", "Actin"), shown as red, green, blue.
    pixel_um : float
        Side of a pixel in micrometres.
    known_as : str, optional
        Digest of what the cells are drawn from, where they can be drawn again: it is their fingerprint then, as another
        device draws them a grey level lighter or darker here and there.

    Raises
    ------
    CellbookError : if the shapes, the number of rows or the data type do not fit together.
    """

    images: np.ndarray
    table: pd.DataFrame
    channels: tuple[str, ...]
    pixel_um: float
    known_as: str | None = None

    def __post_init__(self) -> None:
        _check_images(self.images)
        object.__setattr__(self, "channels", tuple(self.channels))
        if len(self.channels) != self.images.shape[1] or len(set(self.channels)) != len(self.channels):
            raise CellbookError(
                f"channels={self.channels} does not name the {self.images.shape[1]} channels of images: "
                "give one different name for each."
            )
        if not self.pixel_um > 0:
            raise CellbookError(f"pixel_um={self.pixel_um} must be a positive number of micrometres.")
        if not isinstance(self.table, pd.DataFrame) or len(self.table) != len(self.images):
            rows = len(self.table) if hasattr(self.table, "__len__") else "no"
            raise CellbookError(
                f"table has {rows} rows for {len(self.images)} images: give a DataFrame with one row a cell."
            )
        table = self.table.reset_index(drop=True)
        if "Metadata_compound" in table and "Metadata_concentration" not in table:
            table["Metadata_concentration"] = 0.0
        object.__setattr__(self, "table", table)

    def __getattr__(self, name: str):
        # Only reached for what is not there yet: the table of an opened folder, read on first use.
        folder = self.__dict__.get("_folder")
        if name != "table" or folder is None:
            raise AttributeError(name)
        table = _read_table(folder, len(self.images))
        object.__setattr__(self, "table", table)
        return table

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        n, _, h, w = self.images.shape
        return (
            f"CellSet({n} cells, {'/'.join(self.channels)}, {h} x {w} {self.images.dtype}, {self.pixel_um} um a pixel)"
        )

    @property
    def fingerprint(self) -> str:
        """What the cells are `known_as`, or else the hash of their `content` (32 hexadecimal digits)."""
        return self.known_as or self.content

    @property
    def content(self) -> str:
        """Hash of the images, the table, the channels and the pixel size (32 hexadecimal digits).

        An opened folder answers from what was stored when it was saved; `verify` recomputes it.
        """
        if "_content" not in self.__dict__:
            object.__setattr__(self, "_content", self._hash())
        return self.__dict__["_content"]

    def _hash(self) -> str:
        digest = self._header_digest()
        for chunk in _chunks(self.images):
            digest.update(np.ascontiguousarray(chunk))
        return digest.hexdigest()

    def _header_digest(self) -> hashlib.blake2b:
        digest = hashlib.blake2b(digest_size=16)
        header = [list(self.images.shape), self.images.dtype.name, list(self.channels), float(self.pixel_um)]
        digest.update(json.dumps(header).encode())
        _hash_table(self.table, digest)
        return digest

    def verify(self) -> None:
        """Recompute the hash of the content and compare it with the stored one.

        Raises
        ------
        CellbookError : if they differ, that is, if a file changed after it was saved.
        """
        found = self._hash()
        if found != self.content:
            where = self.__dict__.get("_folder", "this set")
            raise CellbookError(
                f"{where}: fingerprint {found} of the content is not the stored {self.content}; "
                "a file was changed or damaged after saving. Make the set again."
            )

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False) -> CellSet:
        """Write the set as a folder and return it opened from there; nothing half-written is ever left under the name.

        Parameters
        ----------
        folder : path
            Where to; its parents are made.
        overwrite : bool
            Replace a cell set that is already there. Any other existing folder is always refused.

        Returns
        -------
        CellSet
            The same cells, memory-mapped.
        """
        return save_parts([self], folder, overwrite, self.known_as)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], known_as: str | None = None) -> CellSet:
        """Open a saved set in milliseconds: images stay a read-only memory map, the table is read on first use.

        `known_as` takes the place of what is stored under that name, if anything is.

        Raises
        ------
        CellbookError : if a file is missing or damaged, or images and header disagree.
        """
        folder = Path(folder)
        for name in (HEADER, IMAGES, TABLE):
            if not (folder / name).is_file():
                raise CellbookError(
                    f"{folder} is no cell set: {name} is missing. Save it again or give another folder."
                )
        try:
            header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
            shape, dtype = tuple(header["shape"]), header["dtype"]
            channels, pixel_um = tuple(header["channels"]), float(header["pixel_um"])
            content, version = header["fingerprint"], header["format"]
            known_as = known_as or header.get("known_as")
        except (ValueError, KeyError, TypeError) as error:
            raise CellbookError(f"{folder / HEADER} is damaged ({error!r}): save the set again.") from error
        if version != FORMAT:
            raise CellbookError(
                f"{folder / HEADER} has format {version}; this version reads {FORMAT}. Make the set again."
            )
        try:
            images = np.load(folder / IMAGES, mmap_mode="r" if shape[0] else None)
        except (ValueError, OSError, EOFError) as error:
            raise CellbookError(f"{folder / IMAGES} is damaged ({error}): save the set again.") from error
        if images.shape != shape or images.dtype.name != dtype:
            raise CellbookError(
                f"{folder / IMAGES} holds {images.shape} {images.dtype.name}, {HEADER} says {shape} {dtype}: "
                "files of two sets were mixed; save the set again."
            )
        _check_images(images)
        self = object.__new__(cls)
        known = {"images": images, "channels": channels, "pixel_um": pixel_um, "known_as": known_as}
        for name, value in (known | {"_folder": folder, "_content": content}).items():
            object.__setattr__(self, name, value)
        return self

    def select(self, rows: str | np.ndarray | pd.Series | list | slice) -> CellSet:
        """Cells chosen by an expression, a mask or row numbers, in the order asked for.

        Parameters
        ----------
        rows : str, boolean mask, row numbers or slice
            A pandas query (``"Metadata_moa == 'DMSO' and Metadata_batch != 'Week1'"``), N booleans, or integers.

        Raises
        ------
        CellbookError : if the expression names an unknown column or is none, the mask has another length, a row number
            lies outside the set, or no cell remains.
        """
        if isinstance(rows, str):
            index = self._query(rows)
        elif isinstance(rows, slice):
            index = np.arange(len(self))[rows]
        else:
            index = np.asarray(rows)
            if index.dtype == bool:
                if index.shape != (len(self),):
                    raise CellbookError(
                        f"rows: a mask of shape {index.shape} for {len(self)} cells; give one value a cell."
                    )
                index = np.flatnonzero(index)
            elif index.size and index.dtype.kind not in "iu":
                raise CellbookError(f"rows: values of type {index.dtype}; give a query, a boolean mask or row numbers.")
            elif index.size and (index.max() >= len(self) or index.min() < -len(self)):
                raise CellbookError(f"rows: {index.min()} to {index.max()} reach outside the set of {len(self)} cells.")
        if len(index) == 0:
            shown = rows if isinstance(rows, str) else type(rows).__name__
            raise CellbookError(f"rows={shown!r} selects none of {len(self)} cells: loosen the selection.")
        return CellSet(self.images[index], self.table.iloc[index], self.channels, self.pixel_um, self._known_as(index))

    def _known_as(self, index: np.ndarray) -> str | None:
        """What some of the cells are known as: these rows of what all are, which all of them in order still are."""
        rows = np.arange(len(self), dtype="<i8")[index]
        if self.known_as is None or np.array_equal(rows, np.arange(len(self))):
            return self.known_as
        return hashlib.blake2b(self.known_as.encode() + rows.tobytes(), digest_size=16).hexdigest()

    def _query(self, expression: str) -> np.ndarray:
        try:
            mask = self.table.eval(expression)
        except pd.errors.UndefinedVariableError as error:
            columns = ", ".join(map(str, self.table.columns))
            raise CellbookError(f"rows={expression!r}: {error}. The columns are: {columns}.") from error
        except Exception as error:  # pandas raises half a dozen kinds for a bad expression
            raise CellbookError(f"rows={expression!r} is no expression over the table: {error}.") from error
        mask = np.asarray(mask)
        if mask.shape != (len(self),) or mask.dtype != bool:
            raise CellbookError(f"rows={expression!r} gives no true or false for each cell: write a comparison.")
        return np.flatnonzero(mask)

    def feature_table(self, values: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
        """Features of the cells (N, d) as a profile table: the ``Metadata_`` columns, then one column a name."""
        known = self.table.filter(regex="^Metadata_")
        return pd.concat([known, pd.DataFrame(values, columns=list(names))], axis=1)

    def to(self, device: str | torch.device) -> torch.Tensor:
        """All images on a device, as they are: (N, C, H, W), uint8 or uint16. On a CPU they are not copied.

        Nothing may be written to them, as those of a stored set cannot be written to. torch can move, view and convert
        uint16 but does little arithmetic on it: take batches with `gather`, which works on every device, then normalise
        them (`channel_max`, `unit`, `stretch`).
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
            return torch.from_numpy(np.ascontiguousarray(self.images)).to(device)

    def grey(self, rows: slice | np.ndarray, device: str | torch.device = "cpu") -> torch.Tensor:
        """Grey values of some rows, (B, C, H, W) float32; they travel to the device in the type they are stored in."""
        return torch.from_numpy(np.array(self.images[rows])).to(device).to(torch.float32)


def save_parts(
    parts: Iterable[CellSet], folder: str | os.PathLike[str], overwrite: bool = False, known_as: str | None = None
) -> CellSet:
    """Write cell sets one after another as one, with no more than one of them in memory; see `CellSet.save`.

    What the parts are known as is not kept: the whole is `known_as` what is said here.

    Raises
    ------
    CellbookError : if there is none, they differ in channels, size or type, the folder is taken, or the disk is full.
    """
    folder = Path(folder)
    if folder.exists() and not (overwrite and (folder / HEADER).is_file()):
        hint = "pass overwrite=True or another name" if (folder / HEADER).is_file() else "give another name"
        raise CellbookError(f"folder={folder} exists already: {hint}.")
    kinds, tables = [], []

    def blocks() -> Iterator[np.ndarray]:
        for part in parts:
            kinds.append((part.channels, part.pixel_um, part.images.shape[1:], part.images.dtype))
            if kinds[-1] != kinds[0]:
                raise CellbookError(f"part {len(kinds)} has {kinds[-1]}, the first {kinds[0]}: join equal sets only.")
            tables.append(part.table)
            yield from _chunks(part.images)
            del part  # before the next one is made

    with files.writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        work.chmod(0o755)
        try:
            files.write_array(work / IMAGES, blocks())
            table = pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
            complete(work, table, *kinds[0][:2], known_as)
            files.put_folder(work, folder)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    return CellSet.open(folder)


def complete(
    folder: Path, table: pd.DataFrame, channels: Sequence[str], pixel_um: float, known_as: str | None = None
) -> CellSet:
    """Make a cell set of a folder that holds the images: add the table, then the header with the hash of both."""
    images = np.load(folder / IMAGES, mmap_mode="r")
    cells = CellSet(images, table, tuple(channels), pixel_um, known_as)
    cells.table.to_parquet(folder / TABLE, index=False)
    header = {
        "format": FORMAT,
        "fingerprint": cells.content,
        "shape": list(images.shape),
        "dtype": images.dtype.name,
        "channels": list(cells.channels),
        "pixel_um": float(pixel_um),
    } | ({"known_as": known_as} if known_as else {})
    files.write_json(folder / HEADER, header)
    return cells


def _check_images(images: np.ndarray) -> None:
    if not isinstance(images, np.ndarray) or images.ndim != 4 or images.dtype not in (np.uint8, np.uint16):
        found = f"{images.shape} {images.dtype}" if isinstance(images, np.ndarray) else type(images).__name__
        raise CellbookError(f"images: {found}; give an array (cells, channels, height, width) of uint8 or uint16.")


def _read_table(folder: Path, rows: int) -> pd.DataFrame:
    try:
        table = pd.read_parquet(folder / TABLE)
    except Exception as error:  # pyarrow has its own family of errors
        raise CellbookError(f"{folder / TABLE} is damaged ({error}): save the set again.") from error
    if len(table) != rows:
        raise CellbookError(f"{folder / TABLE} has {len(table)} rows for {rows} images: save the set again.")
    return table


def _chunks(images: np.ndarray) -> Iterator[np.ndarray]:
    """Blocks of rows of a bounded size, so that a memory map larger than memory can be read through."""
    step = max(1, _CHUNK_BYTES // max(1, images[:1].nbytes))
    for start in range(0, max(1, len(images)), step):  # of no images one empty block
        yield images[start : start + step]


def _hash_table(table: pd.DataFrame, digest: hashlib.blake2b) -> None:
    """Feed names and values; text is hashed as text, so that a file read back (string or object) hashes alike."""
    for name, column in table.items():
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_extension_array_dtype(column.dtype):
            values = column.to_numpy()
            digest.update(f"\x1e{name}\x1f{values.dtype.kind}".encode())
            digest.update(np.ascontiguousarray(values.astype(np.float64 if values.dtype.kind == "f" else np.int64)))
        else:
            text = column.astype(object).where(column.notna(), "\x00").astype(str)
            digest.update(f"\x1e{name}\x1ft".encode() + "\x1f".join(text).encode())

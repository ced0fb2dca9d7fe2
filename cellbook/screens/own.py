"""A reader's own screen: an array of crops, or a folder of field images, with one table."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.profiles import labels
from cellbook.profiles.files import read_table
from cellbook.profiles.names import standard_names
from cellbook.screens.extraction import extract_fields
from cellbook.screens.preflight import Finding, preflight

log = logging.getLogger(__name__)


def import_screen(
    images: str | Path,
    table: str | Path,
    out: str | Path,
    *,
    channels: Sequence[str] = ("DNA", "Tubulin", "Actin"),
    pixel_um: float,
    columns: Mapping[str, str] | None = None,
    files: Sequence[str] | None = None,
    controls: str = "DMSO",
    workers: int = 2,
    progress: bool = True,
    **settings: Any,
) -> CellSet:
    """Turn a reader's images and table into a `CellSet` on disk.

    Parameters
    ----------
    images
        An array of crops, ``.npy`` or ``.npz`` (N, C, H, W); or a folder of TIFF fields.
    table
        CSV or Parquet: one row a crop, or one row a field.
    out
        Folder of the cell set.
    channels
        Names in the order of the array, or of `files`; DNA first. They are stored in this order.
    pixel_um
        Side of a pixel in micrometres.
    columns
        Own column name -> "plate", "well", "batch", "compound", "concentration", "moa", "replicate", "site", "field".
    files
        For fields: the columns that name each channel's file, or one column if a file holds all channels. By default
        ``File_<channel>``, or ``File``.
    controls
        Compound name of the negative control.
    workers, progress, settings
        For fields: see `extraction.extract_fields` and `crops.Settings` (``size``, ``method``, ``illumination`` ...).

    Returns
    -------
    CellSet

    Raises
    ------
    CellbookError
        If the preflight finds errors (the message holds the first and their number), or as the extraction does.
        Warnings are logged; `check_screen` lists everything without importing.
    """
    images, frame, used, joined = _load(images, table, channels, columns, files)
    findings = _findings(images, frame, used, joined, channels, controls)
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more; check_screen, or --check, lists them)" if len(errors) > 1 else ""
        raise CellbookError(f"{errors[0].subject}: {errors[0].message}{more}")
    for finding in findings:
        if finding.level == "warning":
            log.warning("%s: %s", finding.subject, finding.message)
    frame = _complete(frame)
    if isinstance(images, np.ndarray):
        if settings:
            raise CellbookError(f"{', '.join(settings)} cannot be set for an array of crops: they are cut already")
        kept = [c for c in frame if str(c).startswith(("Metadata_", "truth_"))]
        return CellSet(images, frame[kept], tuple(channels), pixel_um).save(out)
    for channel, column in zip(channels, used if len(used) > 1 else list(used) * len(channels), strict=True):
        frame[f"path_{channel}"] = [None if pd.isna(name) else str(images / str(name)) for name in frame[column]]
    if "Metadata_plate" not in frame:
        frame["Metadata_plate"] = "plate"
    kept = [c for c in frame if str(c).startswith(("Metadata_", "path_"))]
    given = {"field_size": None, "channels": tuple(channels), "pixel_um": pixel_um} | settings
    result = extract_fields(frame[kept], out, workers=workers, progress=progress, **given)
    return result.open()


def check_screen(
    images: str | Path,
    table: str | Path,
    *,
    channels: Sequence[str] = ("DNA", "Tubulin", "Actin"),
    columns: Mapping[str, str] | None = None,
    files: Sequence[str] | None = None,
    plates: Sequence[str] | None = None,
    controls: str = "DMSO",
) -> list[Finding]:
    """Preflight of a reader's own screen: what is in order, what is missing, and what that rules out.

    Takes the arguments of `import_screen`, reads no field image and writes nothing.
    """
    loaded, frame, used, joined = _load(images, table, channels, columns, files)
    return _findings(loaded, frame, used, joined, channels, controls, plates)


def _load(
    images: str | Path,
    table: str | Path,
    channels: Sequence[str],
    columns: Mapping[str, str] | None,
    files: Sequence[str] | None,
) -> tuple[np.ndarray | Path, pd.DataFrame, tuple[str, ...], list[str]]:
    """The crops (memory-mapped) or the folder, the table, the columns that name files, and what was joined in it."""
    images = Path(images)
    frame = read_table(table, tuple(columns or ()))
    frame, joined = labels.join(frame.rename(columns=standard_names(frame.columns, columns)))
    # before the batch is needed anywhere: the project's rule for plate names
    if "Metadata_batch" not in frame and "Metadata_plate" in frame:
        plates = frame["Metadata_plate"].dropna().astype(str)
        if plates.str.contains("_").all():
            frame["Metadata_batch"] = plates.str.split("_").str[0]
    if images.is_dir():
        each = tuple(f"File_{channel}" for channel in channels)
        used = tuple(files) if files is not None else ("File",) if "File" in frame else each
        if len(used) not in (1, len(channels)):
            raise CellbookError(f"files names {len(used)} columns for {len(channels)} channels; give one each, or one")
        for name in (c for c in used if c in frame):  # as Windows writes the names of folders
            frame[name] = frame[name].map(lambda path: str(path).replace("\\", "/"), na_action="ignore")
        return images, frame, used, joined
    if images.suffix not in (".npy", ".npz") or not images.is_file():
        raise CellbookError(f"images={images} is neither a folder nor an existing .npy or .npz file; give one of these")
    return _read_array(images), frame, (), joined


def _read_array(path: Path) -> np.ndarray:
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r")
        with np.load(path) as stored:
            name = "images" if "images" in stored.files else stored.files[0] if len(stored.files) == 1 else None
            if name is None:
                raise CellbookError(f"{path} holds {', '.join(stored.files)}; name the crops 'images'")
            return stored[name]
    except CellbookError:
        raise
    except (ValueError, OSError, EOFError, IndexError, zipfile.BadZipFile) as error:
        raise CellbookError(f"{path} is damaged or no array ({error}); save it again with numpy") from error


def _findings(
    images: np.ndarray | Path,
    frame: pd.DataFrame,
    used: tuple[str, ...],
    joined: list[str],
    channels: Sequence[str],
    controls: str,
    plates: Sequence[str] | None = None,
) -> list[Finding]:
    images_or_files = {"images": images} if isinstance(images, np.ndarray) else {"files": used, "folder": images}
    known = {"channels": channels, "plates": plates, "controls": controls, "joined": joined}
    return preflight(frame, **images_or_files, **known)


def _complete(frame: pd.DataFrame) -> pd.DataFrame:
    """Types as the rest of the project expects them."""
    frame = frame.copy()
    if "Metadata_concentration" in frame:
        frame["Metadata_concentration"] = pd.to_numeric(frame["Metadata_concentration"]).astype(float)
    for label in ("plate", "well", "batch"):
        if f"Metadata_{label}" in frame:
            column = frame[f"Metadata_{label}"]
            frame[f"Metadata_{label}"] = column.astype(str).where(column.notna())
    return frame

"""A reader's own screen: an array of crops, or a folder of field images, with one table."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellbook.cells import CellSet
from cellbook.errors import CellbookError
from cellbook.profiles import labels
from cellbook.profiles.files import read_table
from cellbook.profiles.names import standard_names
from cellbook.screens.crops import Settings, make_settings
from cellbook.screens.extraction import extract_fields
from cellbook.screens.listed import image_path
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
    workers: int | None = None,
    progress: bool = True,
    **settings: Any,
) -> CellSet:
    """Turn a reader's images and table into a `CellSet` on disk.

    Parameters
    ----------
    images : an array of crops, ``.npy`` or ``.npz`` (N, C, H, W); or a folder of TIFF fields.
    table : CSV or Parquet: one row a crop, or one row a field.
    out : folder of the cell set.
    channels : names in the order of the array, or of `files`; DNA first. They are stored in this order.
    pixel_um : side of a pixel in micrometres.
    columns : own column name -> "plate", "well", "batch", "compound", "concentration", "moa", "replicate", "site",
        "field".
    files : for fields: the columns that name each channel's file, or one column if a file holds all channels. By
        default ``File_<channel>``, or ``File``.
    controls : compound name of the negative control.
    workers, progress, settings : for fields: see `extraction.extract_fields` and `crops.Settings` (``size``,
        ``method``, ``illumination`` ...).

    Raises
    ------
    CellbookError : if the preflight finds errors (the message holds the first and their number), or as the extraction
        does. Warnings are logged; `check_screen` lists everything without importing.
    """
    screen = _load(images, table, columns, files, channels=tuple(channels), pixel_um=pixel_um, **settings)
    screen.check(controls)
    if isinstance(screen.images, np.ndarray):
        frame = _complete(screen.table)
        kept = [c for c in frame if str(c).startswith(("Metadata_", "truth_"))]
        return CellSet(screen.images, frame[kept], tuple(channels), pixel_um).save(out)
    return extract_fields(screen.fields, out, workers=workers, progress=progress, **asdict(screen.settings)).open()


def own_fields(
    images: str | Path,
    table: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    files: Sequence[str] | None = None,
    controls: str = "DMSO",
    **settings: Any,
) -> tuple[pd.DataFrame, Settings]:
    """One row a field of a reader's own screen, as `extraction.extract_fields` takes them, and how they will be cut.

    Takes the arguments of `import_screen`, and raises as that does before it cuts.
    """
    screen = _load(images, table, columns, files, **settings)
    if isinstance(screen.images, np.ndarray):
        raise CellbookError(f"images={images} holds crops: give the folder of whole fields")
    screen.check(controls)
    return screen.fields, screen.settings


def check_screen(
    images: str | Path,
    table: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    files: Sequence[str] | None = None,
    plates: Sequence[str] | None = None,
    controls: str = "DMSO",
    **settings: Any,
) -> list[Finding]:
    """Preflight of a reader's own screen: what is in order, what is missing, and what that rules out.

    Takes the arguments of `import_screen` and writes nothing. Of fields it opens the files, of a large screen those of
    a thousand fields, but reads the pixels of the first alone.
    """
    return _load(images, table, columns, files, **settings).findings(controls, plates, look=True)


@dataclass(frozen=True)
class _Screen:
    """A table and what it describes: crops, or images in a folder, of which columns name the files."""

    images: np.ndarray | Path
    table: pd.DataFrame
    files: tuple[str, ...]
    joined: list[str]  # what was joined in the table
    settings: Settings

    def findings(self, controls: str, plates: Sequence[str] | None = None, *, look: bool = False) -> list[Finding]:
        """The preflight; with `look` files are opened."""
        kind: dict[str, Any] = {"images": self.images}
        if isinstance(self.images, Path):
            kind = {"files": self.files, "folder": self.images, "settings": self.settings if look else None}
        known = {"channels": self.settings.channels, "plates": plates, "controls": controls, "joined": self.joined}
        return preflight(self.table, **known, **kind)

    def check(self, controls: str) -> None:
        """Raise the first error of the preflight, and log its warnings."""
        findings = self.findings(controls)
        errors = [finding for finding in findings if finding.level == "error"]
        if errors:
            more = f" (and {len(errors) - 1} more; check_screen, or --check, lists them)" if len(errors) > 1 else ""
            raise CellbookError(f"{errors[0].subject}: {errors[0].message}{more}")
        for finding in findings:
            if finding.level == "warning":
                log.warning("%s: %s", finding.subject, finding.message)

    @property
    def fields(self) -> pd.DataFrame:
        """Labels and files of every field, one column a channel."""
        frame, channels = _complete(self.table), self.settings.channels
        used = self.files if len(self.files) > 1 else self.files * len(channels)
        for channel, column in zip(channels, used, strict=True):
            frame[f"path_{channel}"] = [image_path(self.images, name) for name in frame[column]]
        return frame[[c for c in frame if str(c).startswith(("Metadata_", "path_"))]]


def _load(
    images: str | Path, table: str | Path, columns: Mapping[str, str] | None, files: Sequence[str] | None, **given: Any
) -> _Screen:
    images = Path(images)
    frame = read_table(table, tuple(columns or ()))
    frame, joined = labels.join(frame.rename(columns=standard_names(frame.columns, columns)))
    # before the batch is needed anywhere: the project's rule for plate names
    if "Metadata_batch" not in frame and "Metadata_plate" in frame:
        plates = frame["Metadata_plate"].dropna().astype(str)
        if plates.str.contains("_").all():
            frame["Metadata_batch"] = plates.str.split("_").str[0]
    if images.is_dir():
        settings = make_settings(**{"field_size": None} | given)
        each = tuple(f"File_{channel}" for channel in settings.channels)
        used = tuple(files) if files is not None else ("File",) if "File" in frame else each
        if len(used) not in (1, len(each)):
            raise CellbookError(f"files names {len(used)} columns for {len(each)} channels; give one each, or one")
        return _Screen(images, frame, used, joined, settings)
    if images.suffix not in (".npy", ".npz") or not images.is_file():
        raise CellbookError(f"images={images} is neither a folder nor an existing .npy or .npz file; give one of these")
    if unknown := sorted(set(given) - {"channels", "pixel_um"}):
        raise CellbookError(f"{', '.join(unknown)} cannot be set for an array of crops: they are cut already")
    return _Screen(_read_array(images), frame, (), joined, make_settings(**given))


def _read_array(path: Path) -> np.ndarray:
    try:
        stored = np.load(path, mmap_mode="r")
        if not isinstance(stored, np.ndarray):
            with stored:
                name = "images" if "images" in stored.files or len(stored.files) != 1 else stored.files[0]
                if name not in stored.files:
                    raise CellbookError(f"{path} holds {', '.join(stored.files)}; name the crops 'images'")
                stored = stored[name]
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)  # in the machine's byte order
    except CellbookError:
        raise
    except (ValueError, OSError, EOFError, IndexError, zipfile.BadZipFile) as error:
        raise CellbookError(f"{path} is damaged or no array ({error}); save it again with numpy") from error


def _complete(frame: pd.DataFrame) -> pd.DataFrame:
    """Types as the rest of the project expects them."""
    frame = frame.copy()
    doses = frame["Metadata_concentration"] if "Metadata_concentration" in frame else pd.Series(0.0, frame.index)
    frame["Metadata_concentration"] = pd.to_numeric(doses).astype(float).fillna(0.0)  # a missing one is one dose
    if "Metadata_plate" not in frame:
        frame["Metadata_plate"] = "plate"
    for label in ("plate", "well", "batch"):
        if f"Metadata_{label}" in frame:
            column = frame[f"Metadata_{label}"]
            frame[f"Metadata_{label}"] = column.astype(str).where(column.notna())
    return frame

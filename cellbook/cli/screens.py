"""Commands that make cells: simulate, download, extract, import, nuclei, outline.

Results go to standard output, everything else to standard error. Exit code 1: some fields failed; 2: bad input.
"""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cellbook.errors import CellbookError

app = typer.Typer()

DESIGNS = {"bbbc021": "chemical", "genetic": "genetic"}
SHOWN = 10  # failed fields that are named one by one; the report names all

Plates = Annotated[list[str] | None, typer.Option(metavar="NAME", help="plates, by commas or one option each")]
Force = Annotated[bool, typer.Option("--force", help="replace whatever is there")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")]
Workers = Annotated[int | None, typer.Option(min=1, help="processes; as many as cores and memory bear")]
Method = Annotated[str, typer.Option(help="how nuclei are found: otsu (centroids) or dog (maxima)")]
Border = Annotated[str, typer.Option(help="crops over the edge: drop, reflect or zero")]
Illumination = Annotated[bool, typer.Option(help="correct the illumination of each plate")]
Plane = Annotated[str, typer.Option(metavar="AXIS=N", help="of stacks: which plane, as Z=2 or page=1, from 1")]
Series = Annotated[int, typer.Option(metavar="N", help="of files with several images: which, from 1")]
Shrink = Annotated[int, typer.Option(min=1, metavar="N", help="pixels that become one, a side")]
FieldSize = Annotated[str | None, typer.Option(metavar="HxW", help="height x width of a field, or 'any'")]


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="folder of the cell set, or of the fields")],
    preset: Annotated[str, typer.Option(help="size: smoke, quick or paper")] = "quick",
    design: Annotated[str, typer.Option(help="bbbc021 or genetic")] = "bbbc021",
    seed: Annotated[int, typer.Option(help="of everything random")] = 0,
    wells: Annotated[int | None, typer.Option(help="wells of a treatment")] = None,
    controls: Annotated[int | None, typer.Option(help="untreated wells a plate")] = None,
    positive_controls: Annotated[int | None, typer.Option(help="taxol wells a plate")] = None,
    cells: Annotated[int | None, typer.Option(help="cells of an untreated well, about; fields grow with it")] = None,
    sites: Annotated[int | None, typer.Option(help="fields of view a well")] = None,
    crop: Annotated[int | None, typer.Option(help="side of a cell's image in pixels")] = None,
    effect: Annotated[float | None, typer.Option(help="strength of treatments; as all strengths, 0 to 10")] = None,
    compound_effect: Annotated[float | None, typer.Option(help="of differences within a mechanism")] = None,
    week_effect: Annotated[float | None, typer.Option(help="of weeks; 0 removes it")] = None,
    plate_effect: Annotated[float | None, typer.Option(help="of plates")] = None,
    position_effect: Annotated[float | None, typer.Option(help="of places on the plate, and of shading")] = None,
    delay_effect: Annotated[float | None, typer.Option(help="of late staining")] = None,
    noise: Annotated[float | None, typer.Option(help="of the camera")] = None,
    plates: Plates = None,
    fields: Annotated[bool, typer.Option("--fields", help="whole fields as TIFFs, with the official tables")] = False,
    field_size: FieldSize = None,
    outlined: Annotated[bool, typer.Option("--outlined", help="cells alone and in the middle; see `outline`")] = False,
    shrink: Shrink = 1,
    device: Device = "auto",
    force: Force = False,
) -> None:
    """Simulate a screen with known truth; the same arguments give the same fingerprint."""
    from dataclasses import replace

    from cellbook.profiles.table import check_choice
    from cellbook.runs import choose_device
    from cellbook.screens import simulator
    from cellbook.screens.fields import FIELD_SIZE
    from cellbook.screens.outlines import whole
    from cellbook.screens.simulated import write_cells, write_fields
    from cellbook.screens.simulator.simulate import field_shape

    check_choice("--design", design, tuple(DESIGNS))
    given = {"wells": wells, "controls": controls, "positive_controls": positive_controls, "cells": cells}
    given |= {"sites": sites, "crop": crop, "effect": effect, "compound_effect": compound_effect, "noise": noise}
    given |= {"week_effect": week_effect, "plate_effect": plate_effect, "position_effect": position_effect}
    given |= {"delay_effect": delay_effect, "field": parse_size(field_size)}
    changes = {name: value for name, value in given.items() if value is not None}
    config = simulator.preset(preset, design=DESIGNS[design], seed=seed, **changes)
    where = {"plates": parse_plates(plates), "device": choose_device(device)}
    where |= {"force": force, "progress": sys.stderr.isatty()}
    if fields and (outlined or shrink > 1):
        raise CellbookError("--outlined and --shrink are of crops, not of --fields; leave out the one or the other")
    if fields:
        size = config.field or (tuple(max(128, side) for side in field_shape(config)) if cells else FIELD_SIZE)
        made = write_fields(replace(config, field=size), out, **where)
        print(f"cells: {made.cells}")
        print(f"fields: {made.fields} of {size[0]} x {size[1]} pixels")
    else:
        made = write_cells(config, out, **where, outlined=outlined, times=shrink)
        print(f"cells: {len(made)}", *whole(made.table), sep="\n")
    print(f"fingerprint: {made.fingerprint}")
    print(f"folder: {out}")


@app.command()
def download(
    screen: Annotated[str, typer.Argument(help="bbbc021")],
    out: Annotated[list[str] | None, typer.Argument(metavar="[OUT]", help="folder; data/bbbc021 if none")] = None,
    plates: Plates = None,
    base_url: Annotated[str | None, typer.Option(help="a mirror of the official files")] = None,
    checksums: Annotated[Path | None, typer.Option(help="file of lines <hash> <file name>")] = None,
    parallel: Annotated[int, typer.Option(help="archives at once")] = 2,
    keep_archives: Annotated[bool, typer.Option("--keep-archives", help="keep the zips")] = False,
) -> None:
    """Download the images of BBBC021 and its tables (41 GB, 750 MB a plate); called again it goes on."""
    from cellbook.screens.download import BASE_URL, download_bbbc021

    if screen != "bbbc021":
        raise CellbookError(f"{screen!r} cannot be downloaded; the only screen that can is bbbc021")
    # `--plates A B` leaves B among the arguments: names of plates are none of folders.
    words = out or []
    more = [word for word in words if plates and re.fullmatch(r"Week\d+_\d+", word)]
    folders = [word for word in words if word not in more]
    if len(folders) > 1:
        raise CellbookError(
            f"{len(folders)} folders are given ({', '.join(folders)}); give one, and plates by --plates"
        )
    folder = Path(folders[0] if folders else "data/bbbc021")
    how = {"base_url": base_url or BASE_URL, "parallel": parallel, "checksums": checksums}
    how |= {"keep_archives": keep_archives, "progress": sys.stderr.isatty()}
    done = download_bbbc021(folder, parse_plates([*(plates or []), *more]), **how)
    print(f"plates: {len(done.plates)}, {len(done.skipped)} of them were there already")
    print(f"folder: {done.folder}")


@app.command()
def extract(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="folder of the unpacked images")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="folder of the cell set")],
    table: Annotated[Path | None, typer.Option(help="image table; the one in IMAGES, else the published one")] = None,
    moa: Annotated[Path | None, typer.Option(help="table of mechanisms; the one beside the image table")] = None,
    plates: Plates = None,
    size: Annotated[int, typer.Option(help="side of a crop in pixels")] = 68,
    method: Method = "otsu",
    border: Border = "drop",
    illumination: Illumination = True,
    field_size: FieldSize = "1024x1280",
    plane: Plane = "",
    series: Series = 0,
    workers: Workers = None,
    force: Annotated[bool, typer.Option("--force", help="discard what an earlier call has done")] = False,
) -> None:
    """Cut the cells out of fields of BBBC021, or of a screen in its layout; called again it goes on."""
    from cellbook.screens import extraction

    logging.getLogger(extraction.__name__).setLevel(logging.ERROR)  # failures are listed below
    rows, labels = official(images, table, moa)
    how = {"workers": workers, "resume": not force, "progress": sys.stderr.isatty(), "illumination": illumination}
    how |= {"size": size, "method": method, "border": border, "field_size": parse_size(field_size)}
    how |= {"plane": plane, "series": series}
    result = extraction.extract(rows, images, out, moa=labels, plates=parse_plates(plates), **how)
    tell(result.open(), result.report, out / extraction.REPORT)


@app.command(name="import")
def import_(
    images: Annotated[Path, typer.Option(metavar="PATH", help=".npy or .npz of crops, or a folder of TIFFs")],
    table: Annotated[Path, typer.Option(metavar="FILE", help="CSV or Parquet: one row a crop or field")],
    out: Annotated[Path | None, typer.Option(metavar="OUT", help="folder of the cell set")] = None,
    pixel_um: Annotated[float | None, typer.Option(help="side of a pixel in micrometres")] = None,
    channels: Annotated[str, typer.Option(help="names by commas, DNA first")] = "DNA,Tubulin,Actin",
    column: Annotated[list[str] | None, typer.Option(metavar="OWN=NAME", help="own column for plate, well ...")] = None,
    files: Annotated[str | None, typer.Option(help="columns that name each channel's file, by commas")] = None,
    plates: Plates = None,
    controls: Annotated[str, typer.Option(help="compound of the control rows")] = "DMSO",
    size: Annotated[int | None, typer.Option(help="of fields: side of a crop; 68")] = None,
    method: Annotated[str | None, typer.Option(help="of fields: dog or otsu")] = None,
    border: Annotated[str | None, typer.Option(help="of fields: drop, reflect or zero")] = None,
    illumination: Illumination = True,
    field_size: FieldSize = None,
    dtype: Annotated[str | None, typer.Option(help="of fields: uint16 or uint8")] = None,
    plane: Plane = "",
    series: Series = 0,
    workers: Workers = None,
    check: Annotated[bool, typer.Option("--check", help="only say what is there and what is missing")] = False,
) -> None:
    """Import your own screen as a cell set; --check tells what is missing and what that rules out."""
    from cellbook.screens import extraction, own

    names = [name.strip() for name in channels.split(",")]
    columns = dict(pair(word, "--column") for word in column or [])
    known: dict[str, Any] = {"channels": names, "columns": columns, "controls": controls}
    known["files"] = [name.strip() for name in files.split(",")] if files else None
    given = {"size": size, "method": method, "border": border, "dtype": dtype, "field_size": parse_size(field_size)}
    given |= {"plane": plane or None, "series": series or None, "illumination": None if illumination else False}
    settings = {name: value for name, value in given.items() if value is not None}
    if check or plates:
        um = {} if pixel_um is None else {"pixel_um": pixel_um}
        findings = own.check_screen(images, table, plates=parse_plates(plates), **known, **settings, **um)
        errors = [finding for finding in findings if finding.level == "error"]
        for finding in findings if check else errors:
            print(finding, file=sys.stdout if check else sys.stderr)
        if errors:
            raise typer.Exit(2)
        if check:
            return
    if out is None or pixel_um is None:
        raise CellbookError(f"{'--out' if out is None else '--pixel-um'} is missing; give it, or --check alone")
    logging.getLogger(extraction.__name__).setLevel(logging.ERROR)
    cells = own.import_screen(
        images, table, out, pixel_um=pixel_um, workers=workers, progress=sys.stderr.isatty(), **known, **settings
    )
    report = extraction.read_report(out) if images.is_dir() else None
    tell(cells, report, out / extraction.REPORT)


@app.command()
def nuclei(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="16-bit TIFF of the DNA channel")],
    method: Method = "otsu",
    plane: Plane = "",
    series: Series = 0,
) -> None:
    """Print the centres of the nuclei of one image as CSV: y,x in pixels."""
    from cellbook.screens.nuclei import nuclei_csv

    print(nuclei_csv(image, method, plane, series), end="")


@app.command()
def outline(
    cells: Annotated[Path, typer.Argument(metavar="CELLS", help="folder of a cell set")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="folder of the cell set that is written")],
    side: Annotated[int, typer.Option(help="of the new crops in pixels")] = 96,
    shrink: Shrink = 1,
    device: Device = "auto",
    force: Annotated[bool, typer.Option("--force", help="replace a cell set that is there")] = False,
) -> None:
    """Blacken what lies outside of each cell's outline, and put the cell in the middle, as CytoGAN has it."""
    from cellbook.cells import CellSet, save_parts
    from cellbook.runs import choose_device
    from cellbook.screens.outlines import outlined_parts, whole

    made = save_parts(outlined_parts(CellSet.open(cells), side, shrink, choose_device(device)), out, force)
    print(f"cells: {len(made)}", *whole(made.table), sep="\n")
    print(f"fingerprint: {made.fingerprint}")
    print(f"folder: {out}")


def official(images: Path, table: Path | None, moa: Path | None) -> tuple[Any, Any]:
    """Image table and table of mechanisms of BBBC021, or of a screen in its layout, which may have no mechanisms."""
    from cellbook.screens import bbbc021

    if not images.is_dir():
        raise CellbookError(f"the images folder {images} does not exist; give the folder of the unpacked archives")
    name = bbbc021.IMAGE_TABLE.removesuffix(".gz")
    own = [images / name, images / f"{name}.gz"]
    table = table or next((file for file in own if file.is_file()), None)
    rows = bbbc021.image_table(table)
    folder = table if table is None or table.is_dir() else table.parent
    if moa is not None or folder is None or (folder / bbbc021.MOA_TABLE).is_file():
        return rows, bbbc021.moa_table(moa or folder)
    print(f"no {bbbc021.MOA_TABLE} in {folder}: the cells get no mechanisms; see --moa", file=sys.stderr)
    return rows, None


def tell(cells: Any, report: Any, path: Path) -> None:
    """Print what was made; name failed fields, and exit with 1 if there are any."""
    failed = 0
    if report is not None:
        bad = report[report["status"] == "failed"]
        keys = [name for name in ("Metadata_plate", "Metadata_well", "Metadata_site") if name in report]
        for row in bad.head(SHOWN).to_dict("records"):
            print(f"failed: {' '.join(str(row[key]) for key in keys)}: {row['note']}", file=sys.stderr)
        if len(bad) > SHOWN:
            print(f"and {len(bad) - SHOWN} more, see the report", file=sys.stderr)
        noted = report.loc[(report["status"] == "done") & (report["note"] != ""), "note"]
        for note, count in noted.str.split("; ").explode().value_counts().head(SHOWN).items():
            print(f"note on {count} of {len(report)} fields: {note}", file=sys.stderr)
        failed = len(bad)
    print(f"cells: {len(cells)}")
    if report is not None:
        print(f"fields: {len(report) - failed} done, {failed} failed")
        print(f"report: {path}")
    print(f"fingerprint: {cells.fingerprint}")
    if failed:
        raise typer.Exit(1)


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Turn ``1024x1280`` into (height, width); "any" and nothing into None."""
    if text is None or text == "any":
        return None
    match = re.fullmatch(r"(\d+)\s*[x*,]\s*(\d+)", text.strip())
    if match is None:
        raise CellbookError(f"--field-size {text!r} is no size; write height x width in pixels, like 1024x1280")
    return int(match[1]), int(match[2])


def parse_plates(given: list[str] | None) -> list[str] | None:
    """Names of plates from options that may hold several by commas; None if there are none."""
    names = [name.strip() for word in given or [] for name in word.split(",")]
    return [name for name in names if name] or None


def pair(word: str, option: str) -> tuple[str, str]:
    """Split ``own=name``."""
    own, equals, name = word.partition("=")
    if not equals or not own or not name:
        raise CellbookError(f"{option} takes own=name, got {word!r}")
    return own, name

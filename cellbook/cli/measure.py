"""Commands that measure cells: features, of a cell set; plates, of a whole screen, here or by a cluster's workers."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cellbook.cli import screens
from cellbook.errors import CellbookError

app = typer.Typer()

EncoderName = Annotated[
    str,
    typer.Option(
        help="classical, imagenet, pixel-pca, random-network, cell-count; or a trained model as PAGE/MODEL, such as "
        "lafarge2019/VAE+"
    ),
]
RUNS = "runs"
Seed = Annotated[int, typer.Option(min=0, help="of imagenet, pixel-pca and random-network")]
Weights = Annotated[str, typer.Option(help="of a trained model: folder of runs, an archive of models or its address")]
Repeat = Annotated[int, typer.Option(min=0, help="of a trained model: which of its trainings")]


@app.command()
def features(
    cells: Annotated[Path, typer.Argument(metavar="CELLS", help="folder of a cell set")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="profile table: .parquet, .csv or .csv.gz")],
    encoder: EncoderName = "classical",
    level: Annotated[str, typer.Option(help="cell, or well: the mean over its cells")] = "well",
    components: Annotated[int, typer.Option(min=1, help="of pixel-pca")] = 50,
    seed: Seed = 0,
    weights: Weights = RUNS,
    repeat: Repeat = 0,
    device: Annotated[str, typer.Option(help="where cells are measured: auto, cpu, cuda or cuda:1")] = "auto",
) -> None:
    """Measure cells without training, or by a model of the book: the table that `score` and `correct` read."""
    from cellbook.cells import CellSet
    from cellbook.profiles import drop_unusable, to_wells, write_profiles
    from cellbook.profiles.files import check_place
    from cellbook.profiles.table import check_choice
    from cellbook.study.encoders import measure

    chosen = find_encoder(encoder, seed, weights, repeat, device, components)
    check_choice("--level", level, ("cell", "well"))
    if encoder == "cell-count" and level == "cell":
        raise CellbookError("--encoder cell-count has no --level cell: a count belongs to a well")
    check_place(out)
    table = measure(CellSet.open(cells), chosen, progress=sys.stderr.isatty())
    if level == "well" and encoder != "cell-count":
        table = to_wells(table)
    table, dropped = drop_unusable(table)
    if dropped.constant:
        print(f"left out, the same everywhere: {', '.join(dropped.constant)}", file=sys.stderr)
    write_profiles(table, out)
    print(f"rows: {len(table)}")
    print(f"features: {sum(not str(name).startswith('Metadata_') for name in table)}")
    print(f"file: {out}")


@app.command()
def plates(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="folder of the images of fields")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="folder of the plates and of the joined table")],
    encoder: EncoderName = "classical",
    table: Annotated[
        Path | None, typer.Option(help="with --pixel-um your own, as of `import`; else as of `extract`")
    ] = None,
    pixel_um: Annotated[float | None, typer.Option(help="of your own screen: side of a pixel in micrometres")] = None,
    channels: Annotated[str, typer.Option(help="of your own screen: names by commas, DNA first")] = "DNA,Tubulin,Actin",
    column: Annotated[list[str] | None, typer.Option(metavar="OWN=NAME", help="as of `import`")] = None,
    files: Annotated[str | None, typer.Option(help="as of `import`")] = None,
    moa: Annotated[Path | None, typer.Option(help="as of `extract`")] = None,
    plates: screens.Plates = None,
    controls: Annotated[str, typer.Option(help="compound of the control rows")] = "DMSO",
    size: Annotated[int | None, typer.Option(help="side of a crop in pixels; 68")] = None,
    method: Annotated[str | None, typer.Option(help="how nuclei are found: otsu or dog")] = None,
    border: Annotated[str | None, typer.Option(help="crops over the edge: drop, reflect or zero")] = None,
    illumination: screens.Illumination = True,
    field_size: screens.FieldSize = None,
    dtype: Annotated[str | None, typer.Option(help="uint16 or uint8")] = None,
    plane: screens.Plane = "",
    series: screens.Series = 0,
    seed: Seed = 0,
    weights: Weights = RUNS,
    repeat: Repeat = 0,
    device: screens.Device = "auto",
    workers: Annotated[int | None, typer.Option(min=1, help="processes on this machine, by Dask; 1")] = None,
    scheduler: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Dask's, as tcp://host:8786")] = None,
    scratch: Annotated[Path | None, typer.Option(help="where a worker keeps the cells of its plate; in OUT")] = None,
) -> None:
    """Make the profiles of wells of a whole screen, plate by plate; called again it makes the plates that lack."""
    from cellbook.screens import extraction
    from cellbook.screens.crops import make_settings
    from cellbook.screens.fields import known_plates
    from cellbook.screens.own import own_fields
    from cellbook.study.plates import PROFILES, REPORT, make_plates

    logging.getLogger(extraction.__name__).setLevel(logging.ERROR)  # failures are listed below
    chosen = find_encoder(encoder, seed, weights, repeat, device, controls=controls)
    given: dict[str, Any] = {"size": size, "method": method, "border": border, "dtype": dtype}
    given |= {"plane": plane or None, "series": series or None, "illumination": None if illumination else False}
    given = {name: value for name, value in given.items() if value is not None}
    given |= {"field_size": screens.parse_size(field_size)} if field_size else {}
    names = screens.parse_plates(plates)
    if pixel_um is None:
        rows, labels = screens.official(images, table, moa)
        fields, settings = extraction.labelled_fields(rows, images, labels, names), make_settings(**given)
    elif table is None:
        raise CellbookError("--pixel-um is of a screen of your own, whose --table is missing: give both")
    else:
        given |= {"channels": tuple(name.strip() for name in channels.split(",")), "pixel_um": pixel_um}
        given |= {"columns": dict(screens.pair(word, "--column") for word in column or []), "controls": controls}
        given |= {"files": [name.strip() for name in files.split(",")] if files else None}
        fields, settings = own_fields(images, table, **given)
        kept = known_plates(names, list(fields["Metadata_plate"].unique()))
        fields = fields[fields["Metadata_plate"].isin(kept)].reset_index(drop=True)
    how = {"workers": workers, "scheduler": scheduler, "scratch": scratch}
    report = make_plates(fields, out, settings, chosen, **how, progress=sys.stderr.isatty())
    lacking = report[(report["status"] == "failed") | (report["failed_fields"] > 0)]
    for row in lacking.head(screens.SHOWN).itertuples():
        what = "plate" if row.status == "failed" else f"{row.failed_fields} of {row.fields} fields of plate"
        print(f"failed: {what} {row.Metadata_plate}: {row.note}", file=sys.stderr)
    if len(lacking) > screens.SHOWN:
        print(f"and {len(lacking) - screens.SHOWN} plates more, see the report", file=sys.stderr)
    broken = int((report["status"] == "failed").sum())
    print(f"plates: {len(report) - broken} done, {broken} failed")
    print(f"cells: {report['cells'].sum()}")
    print(f"wells: {report['wells'].sum()}")
    print(f"report: {out / REPORT}")
    print(f"file: {out / PROFILES}")
    if len(lacking):
        raise typer.Exit(1)


def find_encoder(
    name: str, seed: int, weights: str, repeat: int, device: str, components: int = 50, controls: str = "DMSO"
) -> Any:
    """The encoder of these words; trained models are those of the published pages."""
    from cellbook.book import notebooks
    from cellbook.study.encoders import Encoder

    results = notebooks.ROOT / "book" / "results"
    place = place_of(weights) if "/" in name else Path(weights)
    return Encoder(name, seed, components, controls, place, repeat, results, device)


def place_of(weights: str) -> Path:
    """The archive or folder of weights; where there are no runs here, the archive that `_config.yml` names."""
    from cellbook import files
    from cellbook.book import trained
    from cellbook.screens import download, locate

    given = weights.startswith(("http://", "https://"))
    address = weights if given else trained.address() if weights == RUNS and not Path(RUNS).exists() else ""
    if not address:
        return Path(weights).resolve()
    archive = locate.cache_folder() / f"models-{files.digest(address)[:12]}.zip"
    if not archive.exists():
        if os.environ.get("CELLBOOK_OFFLINE", "").lower() not in {"", "0", "false", "no"}:
            raise CellbookError(
                f"CELLBOOK_OFFLINE forbids to fetch {address}: give the archive by --weights, or unset it"
            )
        with files.writing(archive):
            archive.parent.mkdir(parents=True, exist_ok=True)
        print(f"fetching {address}", file=sys.stderr)
        download.fetch(address, archive)
    return archive

"""The tables of BBBC021: which well got what, which mechanism that has, and the published CellProfiler profiles.

BBBC021 is 55 plates of MCF-7 cells in ten weeks (Caie et al. 2010). Mechanisms of action (MOA) are known for 103
treatments, a treatment being a compound at a concentration. Every function takes the official files as ``locate`` finds
them, or a reader's own in the same layout, and checks them before it answers.
"""

from collections.abc import Sequence
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Literal

import pandas as pd

from cellbook.errors import CellbookError, nearest, some
from cellbook.profiles.aggregate import TREATMENT, WELL
from cellbook.profiles.files import read_table
from cellbook.profiles.names import is_bookkeeping
from cellbook.profiles.table import as_numbers, check_choice, near_miss
from cellbook.screens import locate

SOURCE = "https://bbbc.broadinstitute.org/BBBC021"
CITATION = (
    "We used image set BBBC021v1 [Caie et al., Molecular Cancer Therapeutics, 2010], available from the Broad Bioimage "
    "Benchmark Collection [Ljosa et al., Nature Methods, 2012]."
)

CONTROL = "DMSO"
POSITIVE_CONTROL = ("taxol", 0.3)  # compound, micromolar; also one of the 103 treatments
CONTROL_WELLS = ("B02", "C02", "D02", "E11", "F11", "G11")  # DMSO on every plate
POSITIVE_CONTROL_WELLS = ("B11", "C11", "D11", "E02", "F02", "G02")  # taxol 0.3 on every plate
PLATES_PER_WEEK = dict(zip((f"Week{i}" for i in range(1, 11)), (6, 6, 6, 6, 6, 6, 5, 5, 6, 3), strict=True))
MOAS = (
    "Actin disruptors",
    "Aurora kinase inhibitors",
    "Cholesterol-lowering",
    "DNA damage",
    "DNA replication",
    "Eg5 inhibitors",
    "Epithelial",
    "Kinase inhibitors",
    "Microtubule destabilizers",
    "Microtubule stabilizers",
    "Protein degradation",
    "Protein synthesis",
)

IMAGE_TABLE = "BBBC021_v1_image.csv.gz"
MOA_TABLE = "BBBC021_v1_moa.csv"
LJOSA_TABLE = "ljosa_jbiomolscreen_2013_per_well_mean.csv.gz"

IMAGE_COLUMNS = {
    "Image_Metadata_Plate_DAPI": "Metadata_plate",
    "Image_Metadata_Well_DAPI": "Metadata_well",
    "Image_Metadata_Compound": "Metadata_compound",
    "Image_Metadata_Concentration": "Metadata_concentration",
    "Replicate": "Metadata_replicate",
}
_MOA_COLUMNS = {"compound": "Metadata_compound", "concentration": "Metadata_concentration", "moa": "Metadata_moa"}
_FEATURE_COLUMNS = {"Image_Metadata_Plate": "Metadata_plate", "Image_Metadata_Well": "Metadata_well"}
_NAMES = ("Image_Metadata_Plate_DAPI", "Image_Metadata_Well_DAPI", "Image_Metadata_Compound")
_OBJECT_NUMBER = "Nuclei_Number_Object_Number"

StrPath = str | PathLike[str]


def treatments() -> pd.DataFrame:
    """Design of the evaluated screen: the 103 treatments with their mechanisms and weeks; needs no data.

    Taxol 0.3 micromolar is listed as a treatment, in Week1; that it is also the positive control of every plate is not
    part of this table.

    Returns
    -------
    DataFrame
        103 rows; ``compound``, ``concentration`` (micromolar), ``moa`` (12 values), ``week`` (``Week1`` to ``Week10``).
    """
    with (files("cellbook.screens") / "bbbc021_treatments.csv").open(encoding="utf-8") as stream:
        return pd.read_csv(stream, dtype={"concentration": float})


def image_table(path: StrPath | None = None) -> pd.DataFrame:
    """Official image table, one row a field, with its official column names.

    Parameters
    ----------
    path : a folder with ``BBBC021_v1_image.csv`` (or ``.csv.gz``), or such a file. By default the published table.

    Returns
    -------
    The published table has 13,200 rows and 13 columns.

    Raises
    ------
    CellbookError : the file is missing, damaged, lacks a column, has missing values in one, or lists a field twice.
    """
    table, where = _read(IMAGE_TABLE, path)
    _require(table, [*IMAGE_COLUMNS, "Image_FileName_DAPI", "Image_PathName_DAPI"], where)
    for column in ("Image_Metadata_Concentration", "Replicate"):
        table[column] = as_numbers(table[column], f"{where}: ").astype("float64")
    table["Replicate"] = table["Replicate"].astype("int64")
    twice = table.duplicated(["Image_PathName_DAPI", "Image_FileName_DAPI"])
    if twice.any():
        raise CellbookError(
            f"{where} lists {twice.sum()} of {len(table)} fields twice (first: "
            f"{table.loc[twice, 'Image_FileName_DAPI'].iloc[0]}); keep one row a field"
        )
    return table


def moa_table(path: StrPath | None = None) -> pd.DataFrame:
    """Official table of mechanisms: ``compound``, ``concentration`` (micromolar), ``moa``; 103 treatments and DMSO.

    Parameters
    ----------
    path : a folder with ``BBBC021_v1_moa.csv``, or such a file. By default the published table.

    Raises
    ------
    CellbookError : the file is missing, damaged, lacks a column or values, labels a treatment twice, or uses an unknown
        MOA.
    """
    table, where = _read(MOA_TABLE, path)
    _require(table, list(_MOA_COLUMNS), where)
    table["concentration"] = as_numbers(table["concentration"], f"{where}: ").astype("float64")
    unknown = table.loc[~table["moa"].isin([*MOAS, CONTROL]), "moa"]
    if len(unknown):
        hint = nearest(unknown.iloc[0], MOAS, f"the known ones are {', '.join(MOAS)} and {CONTROL}")
        raise CellbookError(f"{where} labels {len(unknown)} of {len(table)} rows with {some(unknown)}: no MOA; {hint}")
    twice = table.duplicated(["compound", "concentration"])
    if twice.any():
        named = table.loc[twice, "compound"] + " " + table.loc[twice, "concentration"].map("{:g}".format)
        raise CellbookError(f"{where} labels {twice.sum()} of its treatments twice ({some(named)}); keep one row each")
    return table


def field_labels(table: pd.DataFrame) -> pd.DataFrame:
    """Plate, well, compound, concentration and replicate of each row of an image table, as metadata columns.

    Raises
    ------
    CellbookError : a well has two treatments or replicates.
    """
    fields = table[list(IMAGE_COLUMNS)].rename(columns=IMAGE_COLUMNS).reset_index(drop=True)
    wells = fields.drop_duplicates()
    twice = wells.duplicated(WELL)
    if twice.any():
        raise CellbookError(
            f"the image table gives {twice.sum()} of {len(wells) - twice.sum()} wells more than one compound, "
            f"concentration or replicate ({some(_named(wells[twice]))}); give all fields of a well the same values"
        )
    return fields


def wells(folder: StrPath | None = None) -> pd.DataFrame:
    """One row a well: plate, well, batch, compound, concentration, mechanism, replicate and role, as metadata columns.

    ``Metadata_role`` is "negative control" (DMSO), "positive control" (taxol 0.3 in the six control positions of a
    plate) or "treatment" (all others, so also taxol 0.3 in its library position, D05 in Week1). ``Metadata_moa`` is
    "DMSO" for DMSO and missing for wells without a published mechanism.

    Parameters
    ----------
    folder : a folder with both official tables. By default the published ones: 3,300 wells, 962 of them labelled.

    Returns
    -------
    Wells in the order of the image table.

    Raises
    ------
    CellbookError : as ``image_table`` and ``moa_table``; a well with two treatments; a plate name without a week; no
        treatment that both tables have.
    """
    if folder is not None and Path(folder).is_file():
        raise CellbookError(f"folder is {str(folder)!r}, a file; give the folder that holds it and the other table")
    table = field_labels(image_table(folder)).drop_duplicates(ignore_index=True)
    no_week = table.loc[~table["Metadata_plate"].str.contains("_"), "Metadata_plate"]
    if len(no_week):
        raise CellbookError(
            f"{no_week.nunique()} plate names, {len(no_week)} wells, have no batch before '_' ({some(no_week)}); "
            "name plates as Week4_27481"
        )
    table["Metadata_batch"] = table["Metadata_plate"].str.split("_").str[0].astype("str")
    labels = moa_table(folder).rename(columns=_MOA_COLUMNS)
    table = table.merge(labels, on=TREATMENT, how="left", validate="many_to_one")
    if table["Metadata_moa"].isna().all():
        raise CellbookError(
            f"none of the {len(labels)} treatments of the MOA table is in any of the {len(table)} wells; "
            "check compound names and that concentrations are in micromolar in both tables"
        )
    table["Metadata_role"] = "treatment"
    table.loc[table["Metadata_compound"] == CONTROL, "Metadata_role"] = "negative control"
    compound, concentration = POSITIVE_CONTROL
    positive = (table["Metadata_compound"] == compound) & (table["Metadata_concentration"] == concentration)
    positive &= table["Metadata_well"].isin(POSITIVE_CONTROL_WELLS)
    table.loc[positive, "Metadata_role"] = "positive control"
    described = ["Metadata_batch", *TREATMENT, "Metadata_moa", "Metadata_replicate", "Metadata_role"]
    return table[[*WELL, *described]]


def ljosa2013(features: Literal["phenotype", "all"] = "phenotype", folder: StrPath | None = None) -> pd.DataFrame:
    """Published CellProfiler profiles of BBBC021: the mean over cells of each measurement, one row a well.

    632 wells: 330 DMSO and 302 of the 103 treatments, in three wells each or two. The wells of the taxol positive
    control are not in it. Features are not normalised.

    The table has no cell count; ``Metadata_cell_count`` is a proxy, the cells **per field**: objects are numbered 1 to
    n in a field, their mean number is (n + 1) / 2, so n is twice the mean less 1 (where the fields of a well differ,
    it is the mean of n weighted by n).

    Parameters
    ----------
    features : {"phenotype", "all"}
        "phenotype" (464) leaves out positions, parents, children, object numbers and Euler numbers; the numbers of a
        cell's neighbours, which tell little but the cell count, stay in. "all" is 516.
    folder : a folder with the feature table and both official tables. By default the published ones.

    Returns
    -------
    Profile table with plate, well, batch, compound, concentration, mechanism, replicate, role and cell count.

    Raises
    ------
    CellbookError : as ``wells``; unknown value of ``features``; duplicate wells; wells or plates that the image table
        does not have; compounds without mechanism; features that are not numbers.

    References
    ----------
    Ljosa et al., Journal of Biomolecular Screening 18 (2013) 1321.
    """
    check_choice("features", features, ("phenotype", "all"))
    table, where = _read(LJOSA_TABLE, folder)
    _require(table, [*_FEATURE_COLUMNS, _OBJECT_NUMBER], where)
    table = table.rename(columns=_FEATURE_COLUMNS)
    measured = [column for column in table.columns if column not in WELL]
    for column in measured:
        if not pd.api.types.is_numeric_dtype(table[column]):
            table[column] = as_numbers(table[column], f"{where}: ").astype("float64")
    described = _described(table[WELL], wells(folder), where)
    described["Metadata_cell_count"] = 2 * table[_OBJECT_NUMBER] - 1
    values = table[measured]
    if features == "phenotype":
        values = values[[name for name in measured if not is_bookkeeping(name)]]
    return pd.concat([described, values], axis=1)


def _described(measured: pd.DataFrame, layout: pd.DataFrame, where: str) -> pd.DataFrame:
    """Join the wells of a feature table to the plate layout, in their order."""
    twice = measured.duplicated(WELL)
    if twice.any():
        raise CellbookError(
            f"{where} has {twice.sum()} duplicate wells in {len(measured)} rows ({some(_named(measured[twice]))}); "
            "keep one row a well"
        )
    plates = measured.loc[~measured["Metadata_plate"].isin(layout["Metadata_plate"]), "Metadata_plate"]
    if len(plates):
        raise CellbookError(
            f"{where} has {plates.nunique()} plates, {len(plates)} of {len(measured)} rows, that the image table does "
            f"not have ({some(plates)}); correct the names or add the plates to the image table"
        )
    joined = measured.merge(layout, on=WELL, how="left", validate="one_to_one")
    unknown = joined["Metadata_compound"].isna()
    if unknown.any():
        raise CellbookError(
            f"{where} has {unknown.sum()} of {len(joined)} wells whose compound is unknown: the image table does not "
            f"have them ({some(_named(joined[unknown]))}); add their fields to it, or drop these rows"
        )
    unlabelled = joined["Metadata_moa"].isna()
    if unlabelled.any():
        compounds = joined.loc[unlabelled, "Metadata_compound"]
        raise CellbookError(
            f"{where} has {unlabelled.sum()} of {len(joined)} wells whose treatment the MOA table does not have "
            f"(compounds: {some(compounds)}); add the mechanism there, or drop these rows"
        )
    return joined


def _read(name: str, path: StrPath | None) -> tuple[pd.DataFrame, str]:
    """Read an official table, the published one or a reader's own; also the name to give it in messages."""
    file = locate.find(name) if path is None else _own_file(name, path)
    return read_table(file, _NAMES), str(file)


def _named(table: pd.DataFrame) -> pd.Series:
    return table["Metadata_plate"] + " " + table["Metadata_well"]


def _own_file(name: str, path: str | PathLike[str]) -> Path:
    """Find a table by its official name, gzipped or not, in a reader's folder; a path to a file is taken as it is."""
    path = Path(path).expanduser()
    if path.is_file():
        return path
    plain = name.removesuffix(".gz")
    candidates = [path / name, path / plain, path / f"{plain}.gz"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if not path.exists():
        raise CellbookError(f"path is {str(path)!r}, which does not exist; give a folder with {plain}, or that file")
    raise CellbookError(f"the folder {path} has neither {plain} nor {plain}.gz; put it there")


def _require(table: pd.DataFrame, columns: Sequence[str], where: str) -> None:
    """Refuse a table that lacks one of `columns` or has empty cells there."""
    for column in columns:
        if column not in table.columns:
            found = near_miss(column, [c for c in table.columns if c not in columns])
            mend = f"rename {found!r} to {column!r}" if found else f"its columns are {some(table.columns, 8)}"
            raise CellbookError(f"{where} ({len(table)} rows) has no column {column!r}; {mend}")
        empty = table[column].isna().sum()
        if empty:
            raise CellbookError(f"column {column!r} of {where} is empty in {empty} of {len(table)} rows; fill them in")
        if not pd.api.types.is_numeric_dtype(table[column].dtype):
            table[column] = table[column].astype("str").str.strip()

"""Malformed TIFFs and archives by the hundred: each ends in one sentence or the right pixels, and leaves nothing."""

import io
import struct
import zipfile

import numpy as np
import pytest

from cellbook.errors import CellbookError
from cellbook.screens.download import safe_extract
from cellbook.screens.tiff import check_planes, read_planes

tifffile = pytest.importorskip("tifffile")

ROUNDS = 120  # files of each kind
PYTHON = ("Traceback", "np.", "numpy", "<class", "dtype(", "{'", "download")


def sentence(error):
    text = str(error)
    assert "\n" not in text
    assert 20 < len(text) < 700
    assert not [word for word in PYTHON if word in text], text


def planes(rng):
    return rng.integers(0, 4096, (3, 24, 30), dtype=np.uint16)


def whole_file(rng):
    """Bytes of a good TIFF in one of many ways of writing it, and its planes."""
    stack, stream = planes(rng), io.BytesIO()
    ways = [{"imagej": True, "metadata": {"axes": axes}} for axes in ("CYX", "ZYX", "TYX")]
    ways += [{"ome": True, "metadata": {"axes": axes}} for axes in ("CYX", "ZYX")]
    ways += [{"metadata": None}, {"rowsperstrip": 5}, {"tile": (16, 16)}, {"compression": "zlib"}, {"bigtiff": True}]
    ways += [{"byteorder": ">"}, {"compression": "zlib", "predictor": True, "rowsperstrip": 7}]
    way = ways[rng.integers(len(ways))]
    tifffile.imwrite(stream, stack, photometric="minisblack", **way)
    return bytearray(stream.getvalue()), stack


def cut(rng):
    content, stack = whole_file(rng)
    return content[: rng.integers(len(content))], stack


def wrong_bytes(rng):
    """Wrong bytes where the directories lie: at the start and the end."""
    content, _ = whole_file(rng)
    for _ in range(rng.integers(1, 6)):
        place = rng.integers(300) if rng.random() < 0.7 else len(content) - rng.integers(1, 300)
        content[place] = rng.integers(256)
    return content, None


def wrong_tags(rng):
    """A tag of the first directory with another type, count or value."""
    content, _ = whole_file(rng)
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack(order + "H", content[2:4])[0] == 43
    start = struct.unpack(order + ("Q" if big else "I"), content[8:16] if big else content[4:8])[0]
    head, step = (8, 20) if big else (2, 12)
    number = struct.unpack(order + ("Q" if big else "H"), content[start : start + head])[0]
    entry = start + head + step * int(rng.integers(number))
    value = [0, 1, 3, 255, 65_535, (1 << 31) - 1, (1 << 32) - 1][rng.integers(7)]
    if rng.random() < 0.3:
        struct.pack_into(order + "H", content, entry + 2, int(rng.integers(20)))
    else:
        struct.pack_into(order + "I", content, entry + (step - 4 if rng.random() < 0.7 else 4), value)
    return content, None


def odd_types(rng):
    kinds = ("uint8", "int8", "int16", "uint32", "int64", "float16", "float32", "float64", "complex64", "bool")
    kind, stream = kinds[rng.integers(len(kinds))], io.BytesIO()
    stack = planes(rng).astype(kind)
    if stack.dtype.kind == "f" and rng.random() < 0.5:
        stack[0, 0, 0] = [np.nan, np.inf, 0.5, -1][rng.integers(4)]
    tifffile.imwrite(stream, stack, photometric="minisblack")
    exact = stack.dtype.kind in "iuf" and np.isfinite(stack).all() and (stack >= 0).all() and (stack % 1 == 0).all()
    return bytearray(stream.getvalue()), stack.astype(np.uint16) if exact else None


def lying_descriptions(rng):
    """ImageJ and OME texts that promise other planes than there are."""
    stack, stream = planes(rng), io.BytesIO()
    number = [0, 1, 2, 5, 1000, 10**9, -3][rng.integers(7)]
    axis = ("channels", "slices", "frames")[rng.integers(3)]
    text = f"ImageJ=1.53\nimages={number}\n{axis}={number}\nhyperstack=true\n"
    if rng.random() < 0.5:
        sizes = {axis: max(number, 0) if axis == "CZT"[rng.integers(3)] else 1 for axis in "CZT"}
        order = ("XYZCT", "XYCZT", "XYTZC", "nonsense")[rng.integers(4)]
        text = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
            f'<Pixels ID="Pixels:0" DimensionOrder="{order}" Type="uint16" SizeX="30" SizeY="24" '
            f'SizeZ="{sizes["Z"]}" SizeC="{sizes["C"]}" SizeT="{sizes["T"]}"><TiffData/></Pixels></Image></OME>'
        )
    tifffile.imwrite(stream, stack, photometric="minisblack", description=text, metadata=None)
    return bytearray(stream.getvalue()), stack


def no_tiff(rng):
    starts = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\x00", b"MM\x00+", b"II\x00\x00", b"", b"PK\x03\x04")
    return bytearray(starts[rng.integers(len(starts))] + rng.bytes(int(rng.integers(400)))), None


@pytest.mark.parametrize("make", [cut, wrong_bytes, wrong_tags, odd_types, lying_descriptions, no_tiff])
def test_a_malformed_tiff_is_one_sentence_or_its_own_pixels(tmp_path, make):
    path = tmp_path / "f.tif"
    read = 0
    for seed in range(ROUNDS):
        content, stack = make(np.random.default_rng(seed))
        path.write_bytes(bytes(content))
        for channels, plane in ((3, ""), (1, ""), (1, "page=2"), (1, "Z=2"), (1, "C=2")):
            for reads in (check_planes, read_planes):
                try:
                    found = reads(path, channels, plane=plane)
                except CellbookError as error:
                    sentence(error)
                    continue
                if reads is check_planes or stack is None:
                    continue
                read += 1
                wanted = stack if channels == 3 else stack[1:2] if plane else stack[:1]
                assert np.array_equal(found[0], wanted), (seed, channels, plane)
        assert [item.name for item in tmp_path.iterdir()] == ["f.tif"]
    assert read or make in (wrong_bytes, wrong_tags, no_tiff)


def archive(rng):
    """A zip of some files, good or bad in one of many ways; its bytes."""
    stream = io.BytesIO()
    way = rng.integers(8)
    names = [f"Week1_1/f{i}.tif" for i in range(3)]
    if way == 0:
        bad = ("../out.tif", "/etc/out.tif", "Week1_1/../../out.tif", "..\\out.tif", "C:\\out.tif", "//host/out.tif")
        names.insert(int(rng.integers(4)), bad[rng.integers(len(bad))])
    elif way == 1:
        names += ["Week1_1/f0.tif/deeper.tif", "Week1_1"][rng.integers(2) :]
    elif way == 2:
        names += ["Week1_1/" + "n" * int(rng.integers(200, 400)) + ".tif"]
    elif way == 3:
        names += ["Week1_1/f0.tif"]
    with zipfile.ZipFile(stream, "w", (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[rng.integers(2)]) as made:
        for name in names:
            made.writestr(name, bytes(3_000_000) if way == 4 else rng.bytes(500))
    content = bytearray(stream.getvalue())
    if way == 5:
        content = content[: rng.integers(len(content))]
    elif way >= 6:
        for _ in range(rng.integers(1, 8)):
            place = int(rng.integers(len(content))) if way == 6 else len(content) - int(rng.integers(1, 200))
            content[place % len(content)] = rng.integers(256)
    return bytes(content)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_malformed_archive_is_refused_whole_or_unpacked_whole(tmp_path):
    unpacked = 0
    for seed in range(150):
        out, path = tmp_path / "deep" / f"{seed}", tmp_path / "a.zip"
        out.mkdir(parents=True)
        path.write_bytes(archive(np.random.default_rng(seed)))
        try:
            files = safe_extract(path, out)
        except CellbookError as error:
            text = str(error)
            assert "\n" not in text
            assert "<class" not in text
            assert list(out.iterdir()) == [], (seed, text)
        else:
            unpacked += 1
            assert sorted({*files}) == sorted(item for item in out.rglob("*") if item.is_file())
    assert unpacked > 10
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("bomb.tif", bytes(3_000_000))
    with pytest.raises(CellbookError, match="would unpack to 3,000,000 bytes"):
        safe_extract(path, tmp_path / "deep")
    assert {item.name for item in tmp_path.iterdir()} <= {"deep", "a.zip"}

"""TIFFs as microscopes write them: the planes that the file describes come back with their pixels, or are refused."""

import struct

import numpy as np
import pytest

from cellbook.errors import CellbookError
from cellbook.screens.fields import check_field, read_field
from cellbook.screens.planes import parse_plane
from cellbook.screens.tiff import check_planes, read_planes, read_tiff

tifffile = pytest.importorskip("tifffile")
Image = pytest.importorskip("PIL.Image")

H, W = 40, 52


@pytest.fixture
def stack():
    """Planes (2, 3, 4, H, W), each different from every other."""
    return np.random.default_rng(0).integers(0, 4096, (2, 3, 4, H, W), dtype=np.uint16)


def directory(tags, data, order="<"):
    """A TIFF of one directory, written by hand: entries (code, type, count, value or bytes), then the pixels."""
    head, size = 8, {1: 1, 2: 1, 3: 2, 4: 4, 5: 8}
    extra, entries = b"", []
    after = head + 2 + 12 * (len(tags) + 2) + 4
    for code, kind, count, value in tags:
        if isinstance(value, bytes):
            assert len(value) == count * size[kind]
            entries.append((code, struct.pack(order + "HHII", code, kind, count, after + len(extra))))
            extra += value
        else:
            packed = struct.pack(order + ("H2x" if kind == 3 else "I"), value)
            entries.append((code, struct.pack(order + "HHI", code, kind, count) + packed))
    start = after + len(extra)
    entries.append((273, struct.pack(order + "HHII", 273, 4, 1, start)))
    entries.append((279, struct.pack(order + "HHII", 279, 4, 1, len(data))))
    body = b"".join(entry for _, entry in sorted(entries))
    mark = b"II" if order == "<" else b"MM"
    return struct.pack(order + "2sHIH", mark, 42, 8, len(entries)) + body + struct.pack(order + "I", 0) + extra + data


def plain_tags(bits=16, photometric=1, compression=1):
    values = [(256, 4, W), (257, 4, H), (258, 3, bits), (259, 3, compression), (262, 3, photometric), (277, 3, 1)]
    return [(code, kind, 1, value) for code, kind, value in [*values, (278, 4, H)]]


def test_compressed_packed_and_big_endian_pixels_are_the_same_pixels(tmp_path, stack):
    plane, path = stack[0, 0, 0], tmp_path / "a.tif"
    pytest.importorskip("imagecodecs")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        Image.fromarray(plane).save(path, compression=compression)
        assert np.array_equal(read_tiff(path), plane), compression
    ways = [{"byteorder": ">"}, {"byteorder": ">", "compression": "lzw", "predictor": True}, {"bigtiff": True}]
    ways += [{"tile": (16, 16)}, {"rowsperstrip": 7}, {"tile": (32, 32), "compression": "zlib"}]
    for way in ways:
        tifffile.imwrite(path, plane, **way)
        found = read_tiff(path, size=(H, W))
        assert found.dtype.isnative
        assert np.array_equal(found, plane), way
    rows = b"".join(
        int("".join(format(int(value), "012b") for value in row), 2).to_bytes(W * 12 // 8, "big") for row in plane
    )
    for order in "<>":
        path.write_bytes(directory(plain_tags(bits=12), rows, order))
        assert np.array_equal(read_tiff(path), plane), order


def test_a_missing_codec_is_named_and_the_file_not_called_damaged(tmp_path, stack, monkeypatch):
    from tifffile import TIFF

    path = tmp_path / "a.tif"
    Image.fromarray(stack[0, 0, 0]).save(path, compression="tiff_lzw")

    class Without(dict):
        def __missing__(self, key):
            raise KeyError(f"<COMPRESSION.LZW: {key}> requires the 'imagecodecs' package")

    monkeypatch.setitem(TIFF.__dict__, "DECOMPRESSORS", Without())
    with pytest.raises(CellbookError, match=r"is whole, but stored with LZW.*pip install imagecodecs") as error:
        read_tiff(path)
    assert "copy" not in str(error.value)


@pytest.mark.parametrize("truncate", [False, True])
def test_an_imagej_hyperstack_gives_the_channels_of_the_plane_that_is_named(tmp_path, stack, truncate):
    path = tmp_path / "a.tif"  # ImageJ's order: time, depth, channel
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "TZCYX"}, truncate=truncate)
    found, notes = read_planes(path, 4, plane="Z=3,t=2")
    assert np.array_equal(found, stack[1, 2])
    assert notes == ["Z 3 of 3 taken", "T 2 of 2 taken"]
    assert np.array_equal(read_tiff(path, plane="Z=1,T=2,C=4"), stack[1, 0, 3])
    assert check_planes(path, 4, plane="Z=1,T=1") == (H, W)
    with pytest.raises(CellbookError, match=r"2 along time \(T\) and 3 along depth \(Z\).*--plane T=1"):
        read_planes(path, 4)
    with pytest.raises(CellbookError, match="no Z=4"):
        read_planes(path, 4, plane="Z=4,T=1")
    with pytest.raises(CellbookError, match="not 3 channels: 4 along channel"):
        read_planes(path, 3, plane="Z=1,T=1")


@pytest.mark.parametrize("axes", ["ZCTYX", "CTZYX", "TZCYX"])
def test_ome_axes_are_taken_from_the_description_in_whatever_order(tmp_path, stack, axes):
    path, names = tmp_path / "a.ome.tif", axes[:3]
    tifffile.imwrite(path, stack, ome=True, photometric="minisblack", metadata={"axes": axes})
    want = np.moveaxis(stack, names.index("C"), 2)  # the other two keep their order
    first, second = [name for name in names if name != "C"]
    found, _ = read_planes(path, want.shape[2], plane=f"{first}=2,{second}=3")
    assert np.array_equal(found, want[1, 2])


@pytest.mark.parametrize("axes", ["ZYX", "TYX"])
@pytest.mark.parametrize("kind", [{"imagej": True}, {"ome": True, "photometric": "minisblack"}])
def test_planes_of_depth_or_time_are_never_taken_for_channels(tmp_path, stack, axes, kind):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack[0, :, 0], metadata={"axes": axes}, **kind)
    for channels in (1, 3):
        with pytest.raises(CellbookError, match=rf"3 along .* \({axes[0]}\)"):
            read_planes(path, channels)
    assert np.array_equal(read_tiff(path, plane=f"{axes[0]}=2"), stack[0, 1, 0])


def stk(planes, depth, wavelengths):
    """A MetaMorph stack: MetaMorph's tags count planes, whatever bytes each of them takes."""
    n = len(planes)
    times = b"".join(
        struct.pack("<6I", depth * i + depth, 1, 2_459_000, 1000 * i, 2_459_000, 1000 * i) for i in range(n)
    )
    extra = [(33628, 4, 2, struct.pack("<4I", 0, 1, 1, 100)), (33629, 5, n, times)]
    extra.append((33630, 5, n, b"".join(struct.pack("<2I", length, 1) for length in wavelengths)))
    tags = [*plain_tags(), *((code, kind, count, 0) for code, kind, count, _ in extra)]
    content = bytearray(directory(tags, planes.astype("<u2").tobytes()))
    for code, kind, count, value in extra:
        place = content.index(struct.pack("<HHI", code, kind, count))
        content[place + 8 : place + 12] = struct.pack("<I", len(content))
        content += value
    place = content.index(struct.pack("<HHI", 279, 4, 1))
    content[place + 8 : place + 12] = struct.pack("<I", planes[0].nbytes)
    return bytes(content)


def test_a_metamorph_stack_behind_one_directory_is_seen_whole(tmp_path, stack):
    planes, path = stack[0, :, 0], tmp_path / "a.stk"
    for letter, depth in (("T", 0), ("Z", 2)):
        path.write_bytes(stk(planes, depth, [600] * 3))
        with tifffile.TiffFile(path) as tif:
            assert len(tif.pages) == 1
        with pytest.raises(CellbookError, match=rf"stack of planes, 3 along .* \({letter}\)"):
            read_tiff(path)
        with pytest.raises(CellbookError, match="not 3 channels"):
            read_planes(path, 3)
        for place in (1, 2, 3):
            assert np.array_equal(read_tiff(path, plane=f"{letter}={place}"), planes[place - 1])
    path.write_bytes(stk(planes, 0, [460, 525, 600]))
    assert np.array_equal(read_planes(path, 3)[0], planes)


def ome_set(folder, planes, absent=()):
    """One OME image whose channels lie in a file each, every file with the whole description."""
    data = "".join(
        f'<TiffData FirstC="{i}" IFD="0" PlaneCount="1"><UUID FileName="c{i}.ome.tif">urn:uuid:{i}</UUID></TiffData>'
        for i in range(len(planes))
    )
    for i, plane in enumerate(planes):
        text = (
            f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{i}">'
            f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="{W}" SizeY="{H}" '
            f'SizeZ="1" SizeC="{len(planes)}" SizeT="1">{data}</Pixels></Image></OME>'
        )
        if i not in absent:
            tifffile.imwrite(folder / f"c{i}.ome.tif", plane, description=text, metadata=None)


def test_of_an_ome_set_each_file_holds_its_channel_and_an_absent_one_is_never_zeros(tmp_path, stack):
    planes = stack[0, :, 0]
    ome_set(tmp_path, planes)
    files = [tmp_path / f"c{i}.ome.tif" for i in range(3)]
    assert np.array_equal(read_planes(files[1], 3)[0], planes)
    assert np.array_equal(read_field(files)[0], planes)
    files[2].unlink()
    with pytest.raises(CellbookError, match=r"describes 3 planes, 1 of which are missing, such as the file c2.ome.tif"):
        read_planes(files[0], 3)
    assert np.array_equal(read_tiff(files[1]), planes[1])


def test_pages_without_description_are_channels_if_they_are_as_many_and_a_note_says_so(tmp_path, stack):
    planes, path = stack[0, :, 0], tmp_path / "a.tif"
    ways = {"at once": {}, "one by one": {"append": True}, "bare": {"append": True, "metadata": None}}
    for name, how in ways.items():
        path.unlink(missing_ok=True)
        for part in [planes] if not how else planes:
            tifffile.imwrite(path, part, photometric="minisblack", **how)
        found, notes = read_planes(path, 3)
        assert np.array_equal(found, planes), name
        assert "3 pages, of which it does not say what they are" in notes[0]
        assert np.array_equal(read_tiff(path, plane="page=3"), planes[2]), name
        with pytest.raises(CellbookError, match=r"has 3 pages and does not say what they are.*--plane page=1"):
            read_tiff(path)
        with pytest.raises(CellbookError, match="not 2 channels"):
            read_planes(path, 2)


def test_samples_are_channels_and_a_rendering_is_no_grey_image(tmp_path, stack):
    colour = np.ascontiguousarray(np.moveaxis(stack[0, :, 0], 0, -1))
    for planar in ("contig", "separate"):
        data = colour if planar == "contig" else np.ascontiguousarray(np.moveaxis(colour, -1, 0))
        tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", planarconfig=planar)
        assert np.array_equal(read_planes(tmp_path / "a.tif", 3)[0], stack[0, :, 0])
        with pytest.raises(CellbookError, match="colour image of 3 samples"):
            read_tiff(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "w.tif", stack[0, 0, 0], photometric="miniswhite")
    with pytest.raises(CellbookError, match="0 is white"):
        read_tiff(tmp_path / "w.tif")


def test_smaller_copies_are_passed_over_and_further_images_need_a_choice(tmp_path, stack):
    plane, other, path = stack[0, 0, 0], stack[1, 0, 0], tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:  # a thumbnail as a page of its own
        tif.write(plane, metadata=None)
        tif.write(plane[::4, ::4], subfiletype=1, metadata=None)
    assert np.array_equal(read_tiff(path), plane)
    with tifffile.TiffWriter(path, ome=True) as tif:  # a pyramid
        tif.write(plane, subifds=2, metadata={"axes": "YX"})
        tif.write(plane[::2, ::2], subfiletype=1)
        tif.write(plane[::4, ::4], subfiletype=1)
    assert np.array_equal(read_tiff(path), plane)
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(plane, metadata={"axes": "YX"})
        tif.write(other, metadata={"axes": "YX"})
    with pytest.raises(CellbookError, match=r"holds 2 images.*--series"):
        read_tiff(path)
    found, notes = read_planes(path, 1, series=2)
    assert np.array_equal(found[0], other)
    assert notes == ["image 2 of 2 taken"]
    with pytest.raises(CellbookError, match="holds 2 images"):
        read_tiff(path, series=3)
    with tifffile.TiffWriter(path) as tif:
        tif.write(plane, metadata=None)
        tif.write(other[:20], metadata=None)
    with pytest.raises(CellbookError, match="holds 2 images"):
        read_tiff(path)
    assert np.array_equal(read_tiff(path, series=2), other[:20])


def test_whole_numbers_of_another_type_are_taken_and_fractions_refused(tmp_path, stack):
    path = tmp_path / "a.tif"
    for kind in ("float32", "float64", "int16", "int32", "uint32"):
        tifffile.imwrite(path, stack[0, 0, 0].astype(kind))
        found = read_tiff(path)
        assert (found.dtype, np.array_equal(found, stack[0, 0, 0])) == (np.uint16, True), kind
    spoilt = stack[0, 0, 0].astype("float32")
    for value, words in ((0.5, "no whole numbers"), (-1, "outside 0 to 65535"), (np.nan, "outside"), (7e4, "outside")):
        spoilt[3, 4] = value
        tifffile.imwrite(path, spoilt)
        with pytest.raises(CellbookError, match=f"holds float32 pixels.*{words}"):
            read_tiff(path)


def test_a_file_cut_short_is_no_shorter_stack(tmp_path, stack):
    pytest.importorskip("imagecodecs")
    path = tmp_path / "a.tif"
    for compression in (None, "lzw"):
        for how in ({"imagej": True, "metadata": {"axes": "CYX"}}, {"metadata": None}):
            if compression and "imagej" in how:
                continue
            tifffile.imwrite(path, stack[0, :, 0], photometric="minisblack", compression=compression, **how)
            whole = path.read_bytes()
            for keep in range(20, len(whole) - 1, len(whole) // 40):
                path.write_bytes(whole[:keep])
                for channels, plane in ((3, ""), (1, "page=1"), (1, "C=1")):
                    try:
                        found = read_planes(path, channels, plane=plane)[0]
                    except CellbookError:
                        continue
                    assert np.array_equal(found, stack[0, :channels, 0])


@pytest.mark.parametrize("text", ["Z", "Z=0", "Z=-1", "depth=2", "Z=1;T=2", "=1"])
def test_a_plane_that_is_none_is_refused(text):
    with pytest.raises(CellbookError, match="counted from 1, such as Z=2"):
        parse_plane(text)


def test_channels_in_files_of_their_own_may_be_stacks_too(tmp_path, stack):
    paths = [tmp_path / f"{i}.tif" for i in range(2)]
    for path, planes in zip(paths, stack[:, :, 0], strict=True):
        tifffile.imwrite(path, planes, imagej=True, metadata={"axes": "ZYX"})
    field, notes = read_field(paths, names=("DNA", "Actin"), plane="Z=2")
    assert np.array_equal(field, stack[:, 1, 0])
    assert notes == ["Z 2 of 3 taken"]
    assert check_field(paths, names=("DNA", "Actin"), plane="Z=2") == (H, W)


@pytest.mark.data
def test_files_of_the_microscope_read_as_tifffile_reads_them(data_dir):
    paths = [*(data_dir / "bbbc021" / "images").glob("*.tif"), *(data_dir / "bbbc022").glob("*.tif")]
    assert len(paths) >= 2
    for path in paths:
        whole = np.atleast_3d(tifffile.imread(path).T).T  # (channels, H, W)
        found, notes = read_planes(path, len(whole))
        assert np.array_equal(found, whole)
        assert notes == []

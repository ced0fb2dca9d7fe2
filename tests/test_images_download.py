"""Downloads against a local server: resumed, checked, and never unpacked outside their folder."""

import hashlib
import io
import stat
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest

from cellbook.errors import CellbookError
from cellbook.screens import download
from cellbook.screens.download import TABLES, download_bbbc021, fetch, safe_extract

PLATES = ("Week1_22123", "Week4_27481")


def archive(plate, extra=()):
    """A zip of two random files in the plate's folder, and entries given as (ZipInfo or name, bytes)."""
    rng = np.random.default_rng(len(plate))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for i in range(2):
            target.writestr(f"{plate}/field_{i}.tif", rng.bytes(40_000))
        for entry, content in extra:
            target.writestr(entry, content)
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Serves `content` with ranges; cuts a connection after `cut` bytes as often as `cuts` says."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        table = pd.DataFrame({"Image_Metadata_Plate_DAPI": PLATES}).to_csv(index=False).encode()
        self.content = dict.fromkeys(TABLES, table)
        self.content |= {f"BBBC021_v1_images_{plate}.zip": archive(plate) for plate in PLATES}
        self.cuts, self.cut, self.ranges = 0, 30_000, True
        self.log = []
        self.version = "one"

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *_):
        pass

    def do_GET(self):
        name = self.path.lstrip("/")
        content = self.server.content.get(name)
        asked = self.headers.get("Range")
        self.server.log.append((name, asked))
        if content is None:
            self.send_error(404)
            return
        etag = f'"{self.server.version}"'
        start = 0
        if asked and self.server.ranges and self.headers.get("If-Range") == etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", etag)
        self.end_headers()
        if name.endswith(".zip") and self.server.cuts > 0:
            self.server.cuts -= 1
            body = body[: self.server.cut]
        self.wfile.write(body)


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def get(server, out, **arguments):
    return download_bbbc021(out, base_url=server.url, progress=False, **arguments)


def test_all_plates_and_tables_arrive_and_are_not_fetched_twice(server, tmp_path):
    result = get(server, tmp_path / "out")
    assert result.plates == PLATES
    assert result.skipped == ()
    for plate in PLATES:
        with zipfile.ZipFile(io.BytesIO(server.content[f"BBBC021_v1_images_{plate}.zip"])) as source:
            for name in source.namelist():
                assert (tmp_path / "out" / name).read_bytes() == source.read(name)
    visible = sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith("."))
    assert visible == sorted([*TABLES, *PLATES])
    server.log.clear()
    again = get(server, tmp_path / "out")
    assert again.skipped == PLATES
    assert server.log == []


def test_one_plate_can_be_chosen_and_its_archive_kept(server, tmp_path):
    get(server, tmp_path, plates=[PLATES[1]], keep_archives=True)
    assert (tmp_path / f"BBBC021_v1_images_{PLATES[1]}.zip").is_file()
    assert not (tmp_path / PLATES[0]).exists()
    with pytest.raises(
        CellbookError, match=r"1 of 1 plates are unknown, first 'Week1_22132'; did you mean 'Week1_22123'"
    ):
        get(server, tmp_path, plates=["Week1_22132"])


def test_a_broken_connection_is_resumed_where_it_broke(server, tmp_path):
    server.cuts = 2
    get(server, tmp_path, plates=PLATES[:1])
    asked = [ranges for name, ranges in server.log if name.endswith(".zip")]
    assert asked == [None, "bytes=30000-", "bytes=60000-"]
    assert (tmp_path / PLATES[0] / "field_1.tif").stat().st_size == 40_000


def test_what_arrived_before_a_failure_is_continued_by_the_next_call(server, tmp_path):
    server.cuts = 3
    server.cut = 10_000
    with pytest.raises(CellbookError, match=r"1 of 1 archives failed.*after 30000 bytes.*goes on from there"):
        get(server, tmp_path, plates=PLATES[:1])
    part = tmp_path / f"BBBC021_v1_images_{PLATES[0]}.zip.part"
    assert part.stat().st_size == 30_000
    assert not (tmp_path / PLATES[0]).exists()
    server.log.clear()
    get(server, tmp_path, plates=PLATES[:1])
    assert server.log == [(f"BBBC021_v1_images_{PLATES[0]}.zip", "bytes=30000-")]
    assert not part.exists()


def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(server, tmp_path):
    server.cuts, server.cut, name = 3, 10_000, f"BBBC021_v1_images_{PLATES[0]}.zip"
    with pytest.raises(CellbookError):
        get(server, tmp_path, plates=PLATES[:1])
    server.version = "two"
    server.content[name] = archive(PLATES[0], [("Week1_22123/new.tif", b"new")])
    get(server, tmp_path, plates=PLATES[:1])
    assert (tmp_path / PLATES[0] / "new.tif").read_bytes() == b"new"


def test_a_server_without_ranges_still_ends_with_the_whole_file(server, tmp_path):
    server.ranges, server.cuts = False, 1
    get(server, tmp_path, plates=PLATES[:1])
    assert (tmp_path / PLATES[0] / "field_1.tif").stat().st_size == 40_000


def test_one_missing_archive_does_not_cost_the_others(server, tmp_path):
    del server.content[f"BBBC021_v1_images_{PLATES[0]}.zip"]
    with pytest.raises(CellbookError, match=r"1 of 2 archives failed; the first: .*22123.zip.*404"):
        get(server, tmp_path)
    assert (tmp_path / PLATES[1] / "field_0.tif").is_file()


def test_no_server_is_one_sentence(tmp_path):
    with pytest.raises(CellbookError, match="the connection failed"):
        download_bbbc021(tmp_path, base_url="http://127.0.0.1:9/", progress=False)


def test_checksums_are_compared_and_a_wrong_file_is_not_kept(server, tmp_path):
    name = f"BBBC021_v1_images_{PLATES[0]}.zip"
    sums = tmp_path / "sums.txt"
    sums.write_text(f"# official\n{hashlib.md5(server.content[name]).hexdigest()}  {name}\n")
    get(server, tmp_path / "good", plates=PLATES[:1], checksums=sums)
    sums.write_text(f"{'0' * 64} *images/{name}\n")
    with pytest.raises(CellbookError, match=r"sha256 is .*, expected 0000.*deleted"):
        get(server, tmp_path / "bad", plates=PLATES[:1], checksums=sums)
    assert not list((tmp_path / "bad").glob("*.zip*"))
    sums.write_text("hello\n")
    with pytest.raises(CellbookError, match="line 1: 'hello'"):
        get(server, tmp_path / "bad", checksums=sums)


def test_a_damaged_archive_is_named_deleted_and_leaves_nothing(server, tmp_path):
    name = f"BBBC021_v1_images_{PLATES[0]}.zip"
    content = bytearray(server.content[name])
    content[5000:5100] = bytes(100)
    server.content[name] = bytes(content)
    with pytest.raises(CellbookError, match=f"{name} is damaged"):
        get(server, tmp_path, plates=PLATES[:1])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([download.RECEIPTS, *TABLES])


def test_a_full_disk_keeps_what_arrived(server, tmp_path, monkeypatch):
    get(server, tmp_path, plates=[])
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CellbookError, match=r"bytes are needed and the disk has fewer.*call again"):
        get(server, tmp_path, plates=PLATES[:1])
    monkeypatch.undo()
    get(server, tmp_path, plates=PLATES[:1])


def test_stopping_leaves_a_part_that_the_next_call_uses(server, tmp_path):
    stop = threading.Event()
    name = f"BBBC021_v1_images_{PLATES[0]}.zip"
    server.content[name] = bytes(2_000_000)
    fetch(server.url + name, tmp_path / "x.zip", stop=stop, report=lambda _: stop.set())
    kept = (tmp_path / "x.zip.part").stat().st_size
    assert 0 < kept < 2_000_000
    assert not (tmp_path / "x.zip").exists()
    fetch(server.url + name, tmp_path / "x.zip")
    assert server.log[-1][1] == f"bytes={kept}-"
    assert (tmp_path / "x.zip").stat().st_size == 2_000_000


def link():
    entry = zipfile.ZipInfo("Week1_22123/link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("../escaped.txt", "outside its folder"),
        ("Week1_22123/../../escaped.txt", "outside its folder"),
        ("/escaped.txt", "outside its folder"),
        ("..\\escaped.txt", "outside its folder"),
        ("C:/escaped.txt", "outside its folder"),
        (link(), "is a link"),
    ],
)
def test_an_archive_that_escapes_is_refused_whole(tmp_path, entry, words):
    path = tmp_path / "evil.zip"
    path.write_bytes(archive("Week1_22123", [(entry, b"/etc/passwd")]))
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    with pytest.raises(CellbookError, match=f"evil.zip is refused.*{words}"):
        safe_extract(path, out)
    assert not list(out.iterdir())
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "evil.zip", "out"]

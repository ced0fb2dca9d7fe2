"""Where published files are found, that they are checked, and what is said when they are not there."""

import hashlib
import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cellbook.errors import CellbookError
from cellbook.screens import bbbc021, locate

CONTENT = b"compound,concentration,moa\n" + b"x" * 100


def message(raised) -> str:
    """What the reader sees: one sentence on one line."""
    text = str(raised.value)
    assert "\n" not in text
    return text


@pytest.fixture
def known(tmp_path, monkeypatch):
    """Make one invented file known, downloadable from nowhere yet, on a machine without any data."""
    file = locate.KnownFile("bbbc021/metadata/made_up.csv", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(locate, "KNOWN_FILES", {file.name: file})
    monkeypatch.setattr(locate, "__file__", str(tmp_path / "home/repository/cellbook/screens/locate.py"))
    monkeypatch.setattr(locate, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("CELLBOOK_DATA", raising=False)
    (tmp_path / "elsewhere" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere" / "here")
    return file


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_folders_are_searched_in_the_promised_order(known, tmp_path, monkeypatch):
    assert not locate.is_local("made_up.csv")
    places = [
        put(tmp_path / "cache/made_up.csv"),
        put(tmp_path / "elsewhere/shared/data/bbbc021/metadata/made_up.csv"),
        put(tmp_path / "home/shared/data/bbbc021/metadata/made_up.csv"),
        put(tmp_path / "mine/made_up.csv"),
        put(tmp_path / "mine/bbbc021/metadata/made_up.csv"),
    ]
    monkeypatch.setenv("CELLBOOK_DATA", str(tmp_path / "mine"))
    for place in reversed(places):
        assert locate.is_local("made_up.csv")
        assert locate.find("made_up.csv") == place
        place.unlink()
    assert not locate.is_local("made_up.csv")


def test_truncated_and_altered_files_are_refused_with_both_values(known, tmp_path, monkeypatch):
    monkeypatch.setenv("CELLBOOK_DATA", str(tmp_path / "mine"))
    path = put(tmp_path / "mine/made_up.csv", CONTENT[:50])
    with pytest.raises(CellbookError) as raised:
        locate.find("made_up.csv")
    text = message(raised)
    assert str(path) in text
    assert "50 bytes and should have 127: a truncated download?" in text
    put(path, CONTENT[:-1] + b"y")
    with pytest.raises(CellbookError) as raised:
        locate.find("made_up.csv")
    assert known.sha256 in message(raised)
    put(path)
    assert locate.find("made_up.csv") == path


def test_a_file_is_hashed_once_until_it_changes(known, tmp_path, monkeypatch):
    monkeypatch.setenv("CELLBOOK_DATA", str(tmp_path / "mine"))
    path = put(tmp_path / "mine/made_up.csv")
    hashed = []
    real = locate.sha256
    monkeypatch.setattr(locate, "sha256", lambda file: hashed.append(file) or real(file))
    for _ in range(3):
        locate.find("made_up.csv")
    assert hashed == [path]
    os.utime(path, ns=(1, 1))
    locate.find("made_up.csv")
    assert hashed == [path, path]


def test_wrong_data_folder_is_said_at_once(known, tmp_path, monkeypatch):
    monkeypatch.setenv("CELLBOOK_DATA", str(tmp_path / "absent"))
    with pytest.raises(CellbookError, match=r"CELLBOOK_DATA is set to .*absent', which does not exist"):
        locate.find("made_up.csv")
    monkeypatch.setenv("CELLBOOK_DATA", str(put(tmp_path / "a_file")))
    with pytest.raises(CellbookError, match="which is a file"):
        locate.find("made_up.csv")


def test_absent_file_is_named_with_where_it_was_looked_for(known, tmp_path):
    with pytest.raises(CellbookError) as raised:
        locate.find("made_up.csv")
    text = message(raised)
    for place in ("home/shared/data", "elsewhere/shared/data", "cache"):
        assert str(tmp_path / place) in text
    assert "set CELLBOOK_DATA" in text


def test_unknown_name_proposes_the_nearest():
    with pytest.raises(CellbookError, match=r"did you mean 'BBBC021_v1_moa\.csv'"):
        locate.find("BBBC021_moa.csv")


@pytest.fixture
def server(tmp_path):
    """Serve a folder on this machine; yields the folder and its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as http:
        thread = threading.Thread(target=partial(http.serve_forever, poll_interval=0.02), daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()
        thread.join()


def with_url(monkeypatch, known, url):
    file = locate.KnownFile(known.path, known.size, known.sha256, url + known.name)
    monkeypatch.setattr(locate, "KNOWN_FILES", {file.name: file})


def test_download_goes_to_the_cache_once(known, server, tmp_path, monkeypatch):
    pytest.importorskip("pooch")
    folder, url = server
    with_url(monkeypatch, known, url)
    served = put(folder / known.name)
    with pytest.raises(CellbookError, match="CELLBOOK_OFFLINE forbids the download"):
        locate.find(known.name)
    monkeypatch.setenv("CELLBOOK_OFFLINE", "0")
    path = locate.find(known.name)
    assert path == tmp_path / "cache" / known.name
    assert path.read_bytes() == CONTENT
    served.unlink()
    assert locate.find(known.name) == path


def test_failed_download_is_one_sentence_and_leaves_nothing(known, server, tmp_path, monkeypatch):
    pytest.importorskip("pooch")
    folder, url = server
    monkeypatch.setenv("CELLBOOK_OFFLINE", "")
    with_url(monkeypatch, known, url)
    with pytest.raises(CellbookError, match="the download failed: 404"):
        locate.find(known.name)
    put(folder / known.name, CONTENT[:-1] + b"y")
    with pytest.raises(CellbookError, match="another SHA-256") as raised:
        locate.find(known.name)
    assert known.name in message(raised)
    with_url(monkeypatch, known, "http://127.0.0.1:9/")
    with pytest.raises(CellbookError, match=r"no connection to 127\.0\.0\.1:9; try again later, or fetch http"):
        locate.find(known.name)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.data
def test_published_sizes_and_hashes_are_those_of_the_real_files(data_dir):
    found = {name for name in locate.KNOWN_FILES if locate.is_local(name) and locate.find(name).is_file()}
    assert {bbbc021.IMAGE_TABLE, bbbc021.MOA_TABLE, bbbc021.LJOSA_TABLE} <= found


def test_looking_into_the_cache_says_nothing_on_a_page_without_widgets():
    program = """
import sys, types
kernel = types.SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: kernel)
sys.modules["ipykernel.zmqshell"] = types.ModuleType("zmqshell")  # this is how a page is recognised
sys.modules["ipywidgets"] = None
from cellbook.screens import locate
locate.cache_folder()
print("pooch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("True\n", "")

"""The command that asks for external links: one that answers passes, one that does not is named and ends it with 1."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from cellbook.book import notebooks, rendering


@pytest.fixture
def server():
    """Address of a server that has one page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/there" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_links_that_do_not_answer_are_named(tmp_path, server, monkeypatch, run_main):
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "_config.yml").write_text("title: t\nexecute:\n  execute_notebooks: 'off'\n", encoding="utf-8")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\n", encoding="utf-8")
    page = tmp_path / "index.md"
    page.write_text(f"# T\n\n[a]({server}/there), [b]({server}/gone)\n", encoding="utf-8")
    code, out, _ = run_main("links")
    assert code == 1
    first, last = out.splitlines()
    assert first.startswith(f"index.md: {server}/gone: 404")
    assert last == "links: 2, 1 of them do not answer"
    page.write_text(f"# T\n\n[a]({server}/there)\n", encoding="utf-8")
    assert run_main("links")[:2] == (0, "links: 1, 0 of them do not answer\n")


def test_without_a_network_one_sentence_says_that_it_needs_one(tmp_path, monkeypatch, run_main):
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    (tmp_path / "_toc.yml").touch()

    def answers(links):
        def run(folder, words):
            (folder / "_build" / "linkcheck").mkdir(parents=True, exist_ok=True)
            lines = (json.dumps({"filename": "a.md", "uri": "u", "status": s, "info": i}) for s, i in links)
            (folder / "_build" / "linkcheck" / "output.json").write_text("\n".join(lines), encoding="utf-8")
            return 1, folder / "log"

        monkeypatch.setattr(rendering, "run_jupyter_book", run)

    answers([("broken", "HTTPSConnectionPool: Max retries exceeded"), ("timeout", "no answer"), ("unchecked", "")])
    code, out, err = run_main("links")
    assert (code, out) == (2, "")
    assert err.strip().endswith("none of the 2 addresses can be reached: asking for them needs a network")
    answers([("broken", "HTTPSConnectionPool: Max retries exceeded"), ("broken", "404 Client Error: Not Found")])
    assert run_main("links")[0] == 1  # one has answered, though not with a page

"""What the build adds to the pages that are committed, as an extension of Sphinx: links, freshness, pages of runs.

Committed pages are what was executed, bit for bit, so that what depends on today, or on where the book is shown, is put
in when they are read: a line on what has changed since, links from tables to the runs behind them and from figures to
the function that drew them. The address of the repository, from which links to it and launch buttons follow, is
`repository: url` in `_config.yml`; all of these are off while it is empty.
"""

from __future__ import annotations

import json
import re
import shutil
from html import escape, unescape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellbook.book import drawn, freshness, front, notebooks, run_pages, trained
from cellbook.book.fragments import RUN_PAGES, apart, results_json
from cellbook.book.rendering import PDF
from cellbook.files import read_json

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

CAPTION = '<p class="table-caption">'
BENCHMARK = "<code>benchmarks/"  # in a caption: the table is of no run
SPREAD = re.compile("\N{NO-BREAK SPACE}(?=\\[|±)")  # where room is short, what follows is a line of its own
ROW, CELL = re.compile(r"<tr>.*?</tr>", re.DOTALL), re.compile(r"<td>([^<]+)</td>")
FEW = 3  # runs that a caption names


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("config-inited", prepare)  # before the table of contents is read, which is at priority 900
    app.connect("source-read", read)
    app.connect("html-page-context", link_pdf)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def prepare(app: Sphinx, config: Config) -> None:
    """Write the pages of runs and the first picture, and switch on what needs an address of the repository."""
    run_pages.write(Path(app.srcdir, "book"))
    front.draw(Path(app.srcdir, "book"))
    options = config.html_theme_options
    given = bool(options.get("repository_url"))
    options["use_repository_button"] = given
    if not given:
        options["launch_buttons"] = {}
    if versions := trained.address("versions"):
        options["switcher"] = {"json_url": versions, "version_match": version("cellbook")}
        options["check_switcher"] = False  # a build needs no network
        options["article_header_end"] = ["version-switcher", "article-header-buttons"]


def read(app: Sphinx, docname: str, content: list[str]) -> None:
    """Put into a committed page, as it is read, what is not committed."""
    folder = Path(app.srcdir, "book", "results", docname.rpartition("/")[2])
    if docname.startswith("book/papers/") and (folder / "stamp.json").is_file():
        url = app.config.html_theme_options.get("repository_url", "")
        content[0] = with_links(content[0], folder, url, one_page=app.builder.name == "singlehtml")


def link_pdf(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Link the whole book in one file from the foot of each page, once it is there."""
    if app.builder.name == "html" and pdf_of(app).exists():
        context["theme_extra_footer"] = f'<a href="{context["pathto"](PDF, 1)}">The whole book as PDF</a>'


def finish(app: Sphinx, error: Exception | None) -> None:
    """Write all results into one file, put the PDF beside it, and remove pages of runs of an earlier build."""
    for page in Path(app.outdir, "book", RUN_PAGES).glob("*.html"):
        if not Path(app.srcdir, "book", RUN_PAGES, f"{page.stem}.md").exists():
            page.unlink()
    if error is not None or app.builder.name != "html":
        return
    Path(app.outdir, "results.json").write_text(results_json(Path(app.srcdir, "book")), encoding="utf-8")
    if pdf_of(app).exists():
        shutil.copyfile(pdf_of(app), Path(app.outdir, PDF))


def pdf_of(app: Sphinx) -> Path:
    """Where `cellbook pdf` puts the whole book."""
    return Path(app.outdir).parent / PDF


def with_links(source: str, folder: Path, repository: str, *, one_page: bool = False) -> str:
    """A committed page with what the build adds.

    Parameters
    ----------
    source : the notebook, JSON
    folder : its published results
    repository : address of the repository; empty if there is none
    one_page : all pages become one, in which a link to another is one to a place

    Returns
    -------
    str
        JSON of the notebook.
    """
    notebook, stamp = json.loads(source), read_json(folder / "stamp.json")
    if folder.name in notebooks.pages() and (which := apart(folder.name)):
        head, *rest = drawn.text(notebook["cells"][0]).split("\n")
        notebook["cells"][0]["source"] = "\n".join([f"{head} ({which})", *rest])
    keys = [run["key"] for run in stamp["runs"]]
    for figure in drawn.figures(notebook):
        about = figure.cell["metadata"]["mystnb"]["figure"]
        about["caption"] = f"{figure.caption.rstrip()} {origin(figure, folder.name, stamp['commit'], repository)}\n"
    links, models = run_links(keys, one_page), training_links(folder, one_page)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            html = "".join(output.get("data", {}).get("text/html", ""))
            if CAPTION in html and BENCHMARK not in html:
                html = SPREAD.sub(" ", html)
                html = ROW.sub(lambda row: with_training(row[0], models), html)
                output["data"]["text/html"] = html.replace("</p>", f" {links}</p>", 1)
        if cell.get("id") == "stamp-end":
            cell["source"] = linked(drawn.text(cell), keys) + "\n\n" + downloads(folder)
    place = next((n for n, cell in enumerate(notebook["cells"]) if cell.get("id") == "stamp-cost"), 0)
    told = {
        "cell_type": "markdown",
        "id": "freshness",
        "metadata": {},
        "source": f"{freshness.line(folder)}\n\n{use_of_models(folder)}",
    }
    notebook["cells"].insert(place + 1, told)
    return json.dumps(notebook)


def use_of_models(folder: Path) -> str:
    """How the trained models of a page measure other cells, in Markdown; empty where it has none."""
    table, records = trained.table(folder), trained.kept(folder)
    if "variant" not in table:
        return ""
    kept = table[[bool(trained.weights(records.get(key, {}))) for key in table["key"]]]
    if kept.empty:
        return "The models of this page cannot measure other cells: their weights were not kept."
    name = f"{folder.name}/{kept['variant'].iloc[0]}"
    url = trained.address()
    at = (
        f"are fetched from <{url}>"
        if url
        else "are not in the repository: they are in the `runs` of whoever trained them"
    )
    return (
        "The models of this page measure your cells as well, without training: "
        f"`cellbook features CELLS OUT --encoder '{name}'` ([how](/book/use.md)). Their weights {at}."
    )


def origin(figure: drawn.Figure, page: str, commit: str, repository: str) -> str:
    """Which functions drew a figure, from which data."""
    names = []
    for name in figure.functions:
        path = name.rpartition(".")[0].replace(".", "/")
        at = f"{repository.rstrip('/')}/blob/{commit.rstrip('+')}/{path}.py"
        names.append(f"[`{name}`]({at})" if repository else f"`{name}`")
    by = f"Drawn by {' and '.join(names)}" if names else ""
    data = f"{{download}}`these data <../results/{page}/figures/{figure.data}.csv>`" if figure.data else ""
    return " from ".join(filter(None, (by, data))) + "." if by or data else ""


def run_links(keys: list[str], one_page: bool) -> str:
    """Links to the pages of runs, in HTML, for the caption of a table; of many runs to their list at the page's end."""
    if len(keys) > FEW:
        return '<a class="run" href="#how-this-page-was-made">runs</a>'
    address = "#run-{}" if one_page else f"../{RUN_PAGES}/{{}}.html"
    return " ".join(f'<a class="run" href="{escape(address.format(key))}">{key}</a>' for key in keys)


def training_links(folder: Path, one_page: bool) -> dict[str, str]:
    """Addresses of the trainings of a page, by the names that its tables use."""
    places = run_pages.places(folder.parents[1])
    found = {name: places[key] for name, key in trained.behind(folder).items() if key in places}
    return {name: f"#{at}" if one_page else f"../{RUN_PAGES}/{run}.html#{at}" for name, (run, at) in found.items()}


def with_training(row: str, links: dict[str, str]) -> str:
    """A row of a table in HTML, in which the first cell that names a trained model links to its trainings.

    One of a paper's own numbers stays as it is, and so does one that names profiles and not what aligned them.
    """
    cells = CELL.findall(row)
    name = next((cell for cell in cells if unescape(cell) in links), None)
    if name is None or "paper" in cells or ("#training-wdn-" in links[unescape(name)] and "WDN" not in row):
        return row
    link = f'<a class="training" href="{escape(links[unescape(name)])}">{name}</a>'
    return row.replace(f"<td>{name}</td>", f"<td>{link}</td>", 1)


def downloads(folder: Path) -> str:
    """The tables of a page as files, in Markdown."""
    files = [
        f"{{download}}`{path.name} <../results/{folder.name}/{path.name}>`" for path in sorted(folder.glob("*.csv"))
    ]
    return f"Every number of this page, with all digits: {', '.join(files)}."


def linked(text: str, keys: list[str]) -> str:
    """Markdown in which keys of runs are links to their pages."""
    for key in keys:
        text = text.replace(f"| `{key}` |", f"| [`{key}`](/book/{RUN_PAGES}/{key}.md) |")
    return text

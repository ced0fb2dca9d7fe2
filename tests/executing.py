"""The cells of a page's notebook, executed in the tests' own process, so that modules can be changed for them."""

import matplotlib.pyplot as plt

from cellbook.book import notebooks


def execute(page, given, monkeypatch, notebook=None):
    """Names after all cells of a page's notebook, with some parameters, whether the page is published or not.

    Figures are asked for their description on the way. `notebook`: its name, where it makes several pages.
    """
    known = notebooks.pages() | {page: {"notebook": notebook or page}}
    monkeypatch.setattr(notebooks, "pages", lambda: known)
    space = {}
    for cell in notebooks.read_source(notebooks.source_path(page)).cells:
        if cell.cell_type == "code":
            exec(cell.source, space)
            if "parameters" in cell.metadata.get("tags", []):
                assert set(notebooks.parameters(page)) <= set(space)
                space |= {"page": page, "preset": "smoke", "device": "cpu"} | given
            if "plt.show()" in cell.source:
                described = cell.metadata["mystnb"]
                assert min(len(described["image"]["alt"]), len(described["figure"]["caption"])) > 40
            plt.close("all")
    return space

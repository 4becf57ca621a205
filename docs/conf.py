"""Sphinx configuration. Build with `sphinx-build -W -n docs docs/_build`."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

sys.path.insert(0, str(Path(__file__).parent))

import flowcharts

project = "routilux"
author = "The routilux developers"
copyright = "2026, The routilux developers"
release = version = installed_version("routilux")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
default_role = "any"  # `Flow` is a link to what is so called
html_theme = "furo"
html_title = f"routilux {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False

# Types of other packages that appear in signatures. The build must work without a network, so it can not look
# their pages up.
nitpick_ignore_regex = [
    ("py:.*", r"(collections\.abc|datetime|networkx|os|pathlib|pydantic|threading|typing_extensions)\..*"),
    # Parts that the library makes for itself, in the signatures of objects that only it constructs.
    ("py:.*", r"P"),  # the parameters of some function, as type checkers write them
    ("py:.*", r"routilux\.(core|routine|runtime|store|workflow)\..*"),
]


class Drawings(SphinxPostTransform):
    """Draws what `Flow.to_mermaid` has printed below the block that shows it."""

    default_priority = 500
    formats = ("html",)

    def run(self, **kwargs: object) -> None:
        for block in list(self.document.findall(nodes.literal_block)):
            if drawing := flowcharts.found(block.rawsource):
                picture = f'<div class="flowchart">{flowcharts.draw(drawing)}</div>'
                block.parent.insert(block.parent.index(block) + 1, nodes.raw("", picture, format="html"))


def setup(app: Sphinx) -> None:
    app.add_post_transform(Drawings)

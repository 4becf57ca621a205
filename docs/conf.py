"""Sphinx configuration. Build with `sphinx-build -W -n docs docs/_build`."""

import sys
from enum import Enum
from importlib.metadata import version as installed_version
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import inspect
from typing_extensions import is_protocol

sys.path.insert(0, str(Path(__file__).parent))

import flowcharts

from routilux import Routine

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
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False

# Types of other packages that appear in signatures. The build must work without a network, so it can not look
# their pages up.
nitpick_ignore_regex = [
    ("py:.*", r"(collections\.abc|datetime|networkx|os|pathlib|pydantic|threading|typing_extensions)\..*"),
]

# Names in signatures that have no place in the reference.
nitpick_ignore = [
    # Type variables: what is given is what comes back.
    ("py:class", "P"),
    ("py:class", "routilux.routine.slot.R"),
    ("py:class", "routilux.runtime.context.State"),
    ("py:class", "routilux.runtime.saving.S"),
    ("py:class", "routilux.workflow.P"),
    ("py:class", "routilux.workflow.PayloadT"),
    ("py:class", "routilux.workflow.R"),
    ("py:class", "routilux.workflow.ResultT"),
    # What decorators with options are, until they are put above a function.
    ("py:class", "routilux.routine.function.RoutineMaker"),
    ("py:class", "routilux.routine.method.SlotMaker"),
    ("py:class", "routilux.workflow.WorkflowMaker"),
    # What type checkers see where a function may have the operations of `Steps` or of `AsyncSteps`.
    ("py:class", "routilux.runtime.either_face.EitherSteps"),
]

# Classes whose instances come from the library: their constructors take parts of its inside, and are not shown.
MADE_INSIDE = {
    *("AsyncContext", "AsyncEdit", "AsyncSteps", "AsyncStore", "ChildHandle", "Context", "Edit", "FunctionRoutine"),
    *("JobState", "Slot", "SlotMethod", "Steps", "Store", "Stream", "Workflow", "WorkflowContext"),
}


def constructor(
    app: Sphinx, what: str, name: str, value: type, options: object, signature: str, returns: str
) -> tuple[str, str] | None:
    """Show no constructor where there is none to call, and that of a routine as it is written in its class."""
    if what != "class":
        return None
    if value.__name__ in MADE_INSIDE or is_protocol(value) or issubclass(value, Enum):
        return "", ""
    if value.__init__ is object.__init__:
        return "()", ""
    if issubclass(value, Routine):  # whose `__new__` takes anything
        written = inspect.signature(value.__init__, bound_method=True)
        return inspect.stringify_signature(written, show_return_annotation=False, unqualified_typehints=True), ""
    return None


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
    app.connect("autodoc-process-signature", constructor)

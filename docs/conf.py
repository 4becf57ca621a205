"""Sphinx configuration. Build with `sphinx-build -W -n docs docs/_build`."""

from importlib.metadata import version as installed_version

project = "routilux"
author = "The routilux developers"
copyright = "2026, The routilux developers"
release = version = installed_version("routilux")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
default_role = "any"
html_title = f"routilux {release}"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False

# Types of other packages that appear in signatures. The build must work without a network, so it can not look
# their pages up.
nitpick_ignore_regex = [
    ("py:.*", r"(collections\.abc|datetime|networkx|os|pathlib|pydantic|threading)\..*"),
    # Parts that the library makes for itself, in the signatures of objects that only it constructs.
    ("py:.*", r"P"),  # the parameters of some function, as type checkers write them
    ("py:.*", r"routilux\.(core|routine|runtime|store|workflow)\..*"),
]

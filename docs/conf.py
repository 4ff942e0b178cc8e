"""How the documentation is built: `sphinx-build -W -b html docs docs/_build/html`. It needs no network."""

from importlib.metadata import version as installed_version
from typing import Any

project = "celery-patterns"
author = "The celery-patterns maintainers"
copyright = author
release = version = installed_version("celery-patterns")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
]
root_doc = "index"
exclude_patterns = ["_build"]
suppress_warnings: list[str] = []

myst_enable_extensions = ["deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False

doctest_global_setup = "from celery_patterns import *; from celery_patterns.testing import *"

html_theme = "furo"
html_title = f"celery-patterns {release}"
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "native"


def setup(app: Any) -> None:
    """Called by Sphinx. Napoleon would take what stands before a property's first colon for its type."""
    as_written: dict[str, list[str]] = {}

    def keep(_app: Any, what: str, name: str, _object: Any, _options: Any, lines: list[str]) -> None:
        if what in {"attribute", "data", "property"}:
            as_written[name] = list(lines)

    def restore(_app: Any, _what: str, name: str, _object: Any, _options: Any, lines: list[str]) -> None:
        lines[:] = as_written.pop(name, lines)

    napoleon = 500
    app.connect("autodoc-process-docstring", keep, priority=napoleon - 1)
    app.connect("autodoc-process-docstring", restore, priority=napoleon + 1)

"""The site of the documents: `make docs` builds it with Sphinx, MyST and furo, and every warning is an error.

The source is the whole checkout, so that README.md, SECURITY.md and the others at its top are pages, too, and every link between documents
is checked. Nothing is loaded from elsewhere: a built site can be read without a network.
"""

from pathlib import Path
from shutil import copytree

from sphinx.application import Sphinx

project = "ciphershift"
author = "the ciphershift authors"
copyright = "2026, the ciphershift authors; Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["docs/**", "README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md"]
exclude_patterns = [".*", "build"]  # not searched at all
templates_path = ["_templates"]

myst_heading_anchors = 3
napoleon_use_ivar = True  # a field of a dataclass is described once
default_role = "code"  # what docstrings put between single backticks
autodoc_member_order = "bysource"
autoclass_content = "both"  # the arguments of constructors, too
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}  # not all that it stands for

html_theme = "furo"
html_title = "ciphershift"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["width.css"]
html_additional_pages = {
    "index": "to-docs.html"
}  # pages keep the places of their sources; the index of the site leads to docs/


def setup(app: Sphinx) -> None:
    """Copies the figures of benchmarks.md: Sphinx does not read the HTML that chooses between light and dark ones."""

    def copy(app: Sphinx, _: Exception | None) -> None:
        copytree(Path(app.confdir, "figures"), Path(app.outdir, "docs", "figures"), dirs_exist_ok=True)

    app.connect("build-finished", copy)

"""How the pages become a site: make docs. The source folder is the whole repository, so that pages may link to it."""

import counterpart

project = "Counterpart"
author = "The Counterpart authors"
copyright = author
version = release = counterpart.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["docs/**", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "results/README.md"]
exclude_patterns = ["docs/_build"]

myst_heading_anchors = 4  # links such as evaluation.md#losses
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "cache"
nb_execution_cache_path = "docs/_build/notebooks"
nb_execution_in_temp = True  # where their runs lie
nb_execution_raise_on_error = True
nb_execution_timeout = 300

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give shapes and units
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "pydata_sphinx_theme"
html_title = "Counterpart"
html_theme_options = {
    "show_nav_level": 1,
    "navigation_with_keys": True,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_show_sourcelink = False
html_show_sphinx = False

"""The site, `make docs`: the pages of docs/ and results/, whose links work in the checkout as well."""

project = "mlomae"
copyright = "The mlomae contributors"
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "results/*.md", "CONTRIBUTING.md", "CHANGELOG.md"]
exclude_patterns = ["docs/_build"]
html_theme = "furo"
html_title = "mlomae"
myst_heading_anchors = 3
suppress_warnings = ["toc.not_included"]  # tables of results, which results/README.md links

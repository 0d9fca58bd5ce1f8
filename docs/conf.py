"""How Sphinx builds these pages as a site: `make docs`."""

project = "Fortress"
extensions = ["myst_parser"]
# Links to headings, as a forge makes them: page.md#long-predictions.
myst_heading_anchors = 3
exclude_patterns = ["README.md"]

html_theme = "furo"
html_title = "Fortress"
html_copy_source = False
html_show_sphinx = False

"""The HTML page on a run.

`run_files` reads the run directory, `timeline` and `series` compute the figures, `charts` and
`sections_*` draw them, `page` assembles the page.
"""

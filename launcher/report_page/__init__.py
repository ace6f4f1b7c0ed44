"""The HTML page on a run: `run_files` reads it, `timeline` and `series` make the numbers,
`charts` and `sections_*` draw them, `page` is the whole.
"""

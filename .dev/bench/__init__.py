"""Benchmarks of this package against alternatives: ``make bench``.

Each part answers one question. It runs in its own process, so that parts do not warm each other up and a failure does
not affect the others. A part is a module with ``ROWS`` (its measurements) and ``measure()``. The compared sides run
alternately, in fresh processes (see ``sides``); the result is the median.
"""

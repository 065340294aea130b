"""What this package costs, measured side by side with what people would use instead: ``make bench``.

Each part answers one question and is run in a process of its own, so that none warms up another and one that fails
loses none of the rest. A part is a module with ``ROWS``, what it measures, and ``measure()``, which does it. What is
compared runs in turn, in fresh processes (see ``sides``), and what counts is the median.
"""

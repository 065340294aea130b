"""Learn to read handwritten digits, in five steps that each run on their own.

``python -m digits.generate``, ``digits.noise``, ``digits.train``, ``digits.compare`` and ``digits.report``
read files and write files; ``--help`` says which. Nothing here knows what runs it.
"""

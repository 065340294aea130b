"""Learn to read handwritten digits, in five independent steps.

``python -m digits.generate``, ``digits.noise``, ``digits.train``, ``digits.compare`` and ``digits.report``
read and write the files given by their options (see ``--help``). They do not depend on Airflow or sewer.
"""

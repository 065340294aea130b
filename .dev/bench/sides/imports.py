"""Import modules and print their CPU milliseconds, after other imports.

``imports.py NAME ... -- NAME ...``: each is a module, or ``module:name`` for a name of it. Names before ``--``
are imported first, and not measured.
"""

import importlib
import json
import sys
import time


def main(*names: str) -> None:
    at = names.index("--")
    take(names[:at])
    start = time.process_time()
    take(names[at + 1 :])
    print(json.dumps({"ms": (time.process_time() - start) * 1000}))


def take(names: "tuple[str, ...]") -> None:
    for name in names:
        module, _, attribute = name.partition(":")
        found = importlib.import_module(module)
        if attribute:
            getattr(found, attribute)


if __name__ == "__main__":
    main(*sys.argv[1:])

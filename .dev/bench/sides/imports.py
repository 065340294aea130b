"""Import something and print the CPU milliseconds that it took after something else.

``imports.py NAME ... -- NAME ...``: each is a module, or ``module:name`` for a name to take from it. What stands before
``--`` is imported first, and does not count.
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

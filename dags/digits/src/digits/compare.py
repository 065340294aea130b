"""Compare trained models by their accuracy on the test digits."""

from __future__ import annotations

import argparse
import sys

from digits._files import read_json, write_json
from digits._result import write_result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m digits.compare", description=__doc__)
    parser.add_argument(
        "--results", required=True, action="append", metavar="JSON", help="result of digits.train; once for each model"
    )
    parser.add_argument("--out", required=True, metavar="JSON", help="where to write the comparison")
    args = parser.parse_args()

    results = [read_json(path, {"model", "accuracy", "labels", "predictions"}) for path in args.results]
    if len({result["model"] for result in results}) < len(results):
        sys.exit(f"each model can be compared once, not: {', '.join(result['model'] for result in results)}")
    if any(result["labels"] != results[0]["labels"] for result in results):
        sys.exit("these models read different test digits, so their accuracies cannot be compared")

    accuracies = {result["model"]: result["accuracy"] for result in results}
    best = max(results, key=lambda result: result["accuracy"])
    # The comparison includes the best model's predictions, so that a report needs only this file.
    write_json(
        args.out,
        {
            "accuracies": accuracies,
            "best": best["model"],
            "labels": best["labels"],
            "predictions": best["predictions"],
        },
    )
    write_result({"accuracies": accuracies, "best": best["model"]})
    for model, accuracy in accuracies.items():
        print(f"{model}: accuracy {accuracy:.4f}")
    print(f"best: {best['model']}")


if __name__ == "__main__":
    main()

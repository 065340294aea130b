"""Train one model on the training digits, and measure its accuracy on the test digits."""

from __future__ import annotations

import argparse
import sys

from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import SVC

from digits._files import read_digits, write_json
from digits._result import write_result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m digits.train", description=__doc__)
    parser.add_argument("--model", required=True, help="svc (support vectors) or forest (random forest)")
    parser.add_argument("--in", required=True, dest="source", metavar="NPZ", help="digits to read")
    parser.add_argument("--out", required=True, metavar="JSON", help="where to write accuracy and predictions")
    parser.add_argument("--seed", type=int, default=0, help="seed of the forest (%(default)s)")
    parser.add_argument("--verbose", action="store_true", help="also print how well each digit is read")
    args = parser.parse_args()

    model = new_model(args.model, args.seed)
    digits = read_digits(args.source)
    model.fit(digits.train_images.reshape(len(digits.train_images), -1), digits.train_labels)
    predictions = model.predict(digits.test_images.reshape(len(digits.test_images), -1))
    correct = predictions == digits.test_labels
    accuracy = float(correct.mean())

    write_json(
        args.out,
        {
            "model": args.model,
            "accuracy": accuracy,
            "labels": digits.test_labels.tolist(),
            "predictions": predictions.tolist(),
        },
    )
    write_result({"model": args.model, "accuracy": accuracy})
    if args.verbose:
        for digit in range(10):
            shown = digits.test_labels == digit
            print(f"  digit {digit}: {correct[shown].sum()} of {shown.sum()}")
    print(f"{args.model}: accuracy {accuracy:.4f}, {correct.sum()} of {len(correct)} test digits")


def new_model(name: str, seed: int) -> SVC | RandomForestClassifier:
    """Return an untrained model of this name."""
    if name == "svc":
        return SVC()
    if name == "forest":
        return RandomForestClassifier(n_estimators=100, random_state=seed, n_jobs=1)
    sys.exit(f"there is no model {name!r}: choose svc or forest")


if __name__ == "__main__":
    main()

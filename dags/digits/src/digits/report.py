"""Draw the confusion matrix of the best model, as a PNG picture."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from sklearn.metrics import confusion_matrix

from digits._files import read_json, write_atomically
from digits._result import write_result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m digits.report", description=__doc__)
    parser.add_argument("--in", required=True, dest="source", metavar="JSON", help="comparison to read")
    parser.add_argument("--out", required=True, metavar="PNG", help="where to write the picture")
    args = parser.parse_args()

    comparison = read_json(args.source, {"accuracies", "best", "labels", "predictions"})
    counts = confusion_matrix(comparison["labels"], comparison["predictions"], labels=range(10))
    figure = draw(counts, comparison["best"], comparison["accuracies"])
    picture = io.BytesIO()
    # No software name and version, so that the same figures give the same bytes.
    figure.savefig(picture, format="png", dpi=150, metadata={"Software": None})
    write_atomically(args.out, picture.getvalue())

    json_path, png_path = str(Path(args.source).absolute()), str(Path(args.out).absolute())
    write_result({"json": json_path, "png": png_path})
    print(f"best: {comparison['best']}, accuracy {comparison['accuracies'][comparison['best']]:.4f}")
    print(json_path)
    print(png_path)


def draw(counts: np.ndarray, best: str, accuracies: dict[str, float]) -> Figure:
    """Draw the matrix: right readings in blue, mistakes in red, the darker the more there are."""
    figure = Figure(figsize=(7.2, 7.8), layout=ConstrainedLayoutEngine(w_pad=0.2, h_pad=0.2))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()

    right = counts * np.eye(len(counts), dtype=int)
    wrong = counts - right
    # The scales reach beyond the highest counts, so that the numbers stay readable on the darkest cells.
    axes.imshow(np.ma.masked_equal(right, 0), cmap="Blues", vmin=0, vmax=1.3 * counts.max())
    axes.imshow(np.ma.masked_equal(wrong, 0), cmap="Reds", vmin=-1, vmax=max(10, 2 * wrong.max()))
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if row == column and count > counts.max() / 2 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=11)

    axes.set_xticks(range(len(counts)))
    axes.set_yticks(range(len(counts)))
    borders = np.arange(0.5, len(counts) - 1)
    axes.set_xticks(borders, minor=True)
    axes.set_yticks(borders, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_color("0.8")
    axes.set_xlabel("read as", fontsize=12, labelpad=8)
    axes.set_ylabel("written digit", fontsize=12, labelpad=8)

    axes.set_title(f"{best}: accuracy {accuracies[best]:.1%} on {counts.sum()} test digits", fontsize=15, pad=28)
    others = ", ".join(f"{model} {accuracy:.1%}" for model, accuracy in accuracies.items() if model != best)
    subtitle = f"compared with {others}" if others else ""
    axes.text(0.5, 1.025, subtitle, transform=axes.transAxes, ha="center", color="0.4", fontsize=11)
    return figure


if __name__ == "__main__":
    main()

"""The example project: its modules run by hand, one process each, in an environment of their own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

DAGS = Path(__file__).resolve().parents[2] / "dags"
FILES = ("raw.npz", "noisy.npz", "svc.json", "forest.json", "comparison.json", "confusion.png")


def test_generate_keeps_test_images_out_of_training(digits_python, tmp_path):
    """No test image, nor a copy of one, is among the training images."""
    run(digits_python, tmp_path, "digits.generate", "--out", "raw.npz", "--copies", 2, "--shift", 0, "--rotation", 0)

    # Copies that are neither shifted nor rotated equal their originals, so they can be recognised.
    found = ask(
        digits_python,
        tmp_path,
        """
        from sklearn.datasets import load_digits
        digits = numpy.load("raw.npz")
        train = [image.tobytes() for image in digits["train_images"]]
        test = [image.tobytes() for image in digits["test_images"]]
        originals = {image.tobytes() for image in load_digits().images}
        answer = {
            "train": len(train), "originals in train": len(set(train)), "test": len(test),
            "in both": len(set(train) & set(test)), "all are real": originals == set(train) | set(test),
        }
        """,
    )
    assert found == {"train": 3 * 898, "originals in train": 898, "test": 899, "in both": 0, "all are real": True}


def test_generate_splits_each_digit_evenly(steps, digits_python):
    """Of each digit, both halves hold the same number of images, give or take one."""
    folder, _ = steps
    counts = ask(
        digits_python,
        folder,
        """
        digits = numpy.load("raw.npz")
        halves = {"train": digits["train_labels"][:898], "test": digits["test_labels"]}
        answer = {name: numpy.bincount(labels).tolist() for name, labels in halves.items()}
        """,
    )
    differences = [abs(train - test) for train, test in zip(counts["train"], counts["test"], strict=True)]
    assert len(differences) == 10
    assert max(differences) <= 1


def test_noise_changes_every_image_within_range(steps, digits_python):
    """Noise changes every image of both halves, and no pixel gets lighter than paper or darker than ink."""
    folder, _ = steps
    found = ask(
        digits_python,
        folder,
        """
        raw, noisy = numpy.load("raw.npz"), numpy.load("noisy.npz")
        answer = {
            half: {
                "lowest": noisy[half].min(), "highest": noisy[half].max(),
                "unchanged": int((raw[half] == noisy[half]).all(axis=(1, 2)).sum()),
            }
            for half in ("train_images", "test_images")
        }
        """,
    )
    assert found["train_images"] == {"lowest": 0.0, "highest": 16.0, "unchanged": 0}
    assert found["test_images"] == {"lowest": 0.0, "highest": 16.0, "unchanged": 0}


@pytest.mark.parametrize("model", ["svc", "forest"])
def test_train_accuracy_is_at_least_nine_of_ten(steps, model):
    """The model reads more than nine of ten test digits, and its accuracy is that of its predictions."""
    folder, _ = steps
    result = json.loads((folder / f"{model}.json").read_text())
    right = [label == read for label, read in zip(result["labels"], result["predictions"], strict=True)]

    assert len(right) == 899
    assert result["accuracy"] == pytest.approx(sum(right) / len(right))
    assert 0.9 < result["accuracy"] < 1.0


def test_compare_names_best_model(steps):
    """The comparison holds the accuracy of both models and names the one with the higher."""
    folder, _ = steps
    svc, forest, comparison = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("svc", "forest", "comparison")
    )

    assert svc["accuracy"] != forest["accuracy"]
    assert comparison["accuracies"] == {"svc": svc["accuracy"], "forest": forest["accuracy"]}
    assert comparison["best"] == max(svc, forest, key=lambda result: result["accuracy"])["model"]


def test_report_prints_path_of_valid_picture(steps, digits_python):
    """The report's last lines are the places of its JSON and of a PNG that can be opened and is not blank."""
    folder, outputs = steps
    json_path, png_path = outputs["report"].splitlines()[-2:]
    assert json_path == str(folder / "comparison.json")
    assert png_path == str(folder / "confusion.png")

    picture = ask(
        digits_python,
        folder,
        """
        import matplotlib.image
        pixels = matplotlib.image.imread("confusion.png", format="png")
        colours = numpy.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)
        answer = {"height": pixels.shape[0], "width": pixels.shape[1], "colours": len(colours)}
        """,
    )
    assert 800 <= picture["width"] <= 2000
    assert 800 <= picture["height"] <= 2000
    assert picture["colours"] > 20


def test_step_writes_result_to_sewer_result_file(steps, digits_python, tmp_path):
    """Each of the last three steps leaves a small JSON result in the file that SEWER_RESULT_FILE names."""
    folder, _ = steps
    comparison = json.loads((folder / "comparison.json").read_text())
    accuracies, best = comparison["accuracies"], comparison["best"]
    out = tmp_path / "out"

    def result_of(*command):
        run(digits_python, folder, *command, "--out", out, env={"SEWER_RESULT_FILE": str(tmp_path / "result.json")})
        return json.loads((tmp_path / "result.json").read_text())

    trained = result_of("digits.train", "--model", "svc", "--in", "noisy.npz")
    assert trained == {"model": "svc", "accuracy": accuracies["svc"]}
    compared = result_of("digits.compare", "--results", "svc.json", "--results", "forest.json")
    assert compared == {"accuracies": accuracies, "best": best}
    reported = result_of("digits.report", "--in", "comparison.json")
    assert reported == {"json": str(folder / "comparison.json"), "png": str(out)}


def test_workflow_output_equals_output_of_modules(steps, digits_python, tmp_path):
    """Run again, this time by the workflow file in plain Python, all files come out the same byte for byte."""
    folder, _ = steps
    path = f"{digits_python.parent}{os.pathsep}{os.environ['PATH']}"
    workflow = [sys.executable, str(DAGS / "workflows" / "digits.py")]
    subprocess.run(workflow, cwd=tmp_path, env={**os.environ, "PATH": path}, check=True)

    made = tmp_path / "build" / "digits"
    assert sorted(file.name for file in made.iterdir()) == sorted(FILES)
    assert [name for name in FILES if (made / name).read_bytes() != (folder / name).read_bytes()] == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["digits.noise", "--in", "gone.npz", "--out", "out"], "gone.npz: No such file"),
        (["digits.train", "--model", "svc", "--in", "svc.json", "--out", "out"], "svc.json: it was not written by"),
        (
            ["digits.train", "--model", "tree", "--in", "noisy.npz", "--out", "out"],
            "no model 'tree': choose svc or forest",
        ),
        (["digits.compare", "--results", "svc.json", "--results", "svc.json", "--out", "out"], "not: svc, svc"),
        (["digits.report", "--in", "svc.json", "--out", "out"], "svc.json: it lacks"),
    ],
    ids=["missing file", "not digits", "unknown model", "same model twice", "no comparison"],
)
def test_invalid_input_exits_with_one_line(steps, digits_python, command, message):
    """A user's mistake ends a step with one line about it, a failure's exit code, and no output file."""
    folder, _ = steps
    ended = start(digits_python, folder, *command)

    assert ended.returncode == 1
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (folder / "out").exists()


def test_failed_write_keeps_old_file(steps, digits_python, tmp_path):
    """When the disk takes no more, the file that was there before stays as it was, and nothing lies beside it."""
    folder, _ = steps
    target = tmp_path / "noisy.npz"
    target.write_bytes(b"made by an earlier run")

    def allow_small_files_only():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    ended = start(
        digits_python, folder, "digits.noise", "--in", "raw.npz", "--out", target, preexec_fn=allow_small_files_only
    )
    assert ended.returncode == 1
    assert ended.stderr == f"cannot write {target}: File too large\n"
    assert target.read_bytes() == b"made by an earlier run"
    assert list(tmp_path.iterdir()) == [target]


@pytest.fixture(scope="module")
def steps(digits_python, tmp_path_factory):
    """Run all steps by hand, as in the workflow file; return their folder and their outputs."""
    folder = tmp_path_factory.mktemp("digits")
    commands = {
        "generate": ["digits.generate", "--out", "raw.npz", "--copies", 4, "--seed", 1],
        "noise": ["digits.noise", "--in", "raw.npz", "--out", "noisy.npz", "--level", 0.15],
        "svc": ["digits.train", "--model", "svc", "--in", "noisy.npz", "--out", "svc.json"],
        "forest": ["digits.train", "--model", "forest", "--in", "noisy.npz", "--out", "forest.json", "--verbose"],
        "compare": ["digits.compare", "--results", "svc.json", "--results", "forest.json", "--out", "comparison.json"],
        "report": ["digits.report", "--in", "comparison.json", "--out", "confusion.png"],
    }
    return folder, {name: run(digits_python, folder, *command) for name, command in commands.items()}


def start(python, folder, module, *arguments, env=None, preexec_fn=None):
    """Run a module to its end, however it ends."""
    return subprocess.run(
        [python, "-m", module, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **(env or {})},
        preexec_fn=preexec_fn,
        capture_output=True,
        text=True,
        check=False,
    )


def run(python, folder, module, *arguments, env=None):
    """Run a module that must succeed; return its output."""
    ended = start(python, folder, module, *arguments, env=env)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def ask(python, folder, code):
    """Have the project's own environment, which has numpy, look at files; return the ``answer`` of the code."""
    script = f"import json, numpy\n{dedent(code)}\nprint(json.dumps(answer))"
    asked = subprocess.run([python, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    return json.loads(asked.stdout)

"""Generate training and test digits: real handwriting, split in two halves, the training half augmented.

The images are split before they are augmented, so that no shifted or rotated copy of a test image is ever
trained on.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from digits._files import Digits, write_digits


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m digits.generate", description=__doc__)
    parser.add_argument("--out", required=True, metavar="NPZ", help="where to write the digits")
    parser.add_argument("--copies", type=int, default=4, help="augmented copies of each training image (%(default)s)")
    parser.add_argument("--shift", type=float, default=0.5, help="pixels that a copy may be shifted (%(default)s)")
    parser.add_argument("--rotation", type=float, default=8.0, help="degrees that it may be rotated (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split and of the copies (%(default)s)")
    args = parser.parse_args()

    digits = split(args.seed)
    digits = augment(digits, args.copies, args.shift, args.rotation, np.random.default_rng(args.seed))
    write_digits(args.out, digits)
    print(f"{len(digits.train_images)} training images, {len(digits.test_images)} test images: {args.out}")


def split(seed: int) -> Digits:
    """Split scikit-learn's digits into two halves with the same share of each digit."""
    images, labels = load_digits(return_X_y=True)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images.reshape(-1, 8, 8), labels, test_size=0.5, stratify=labels, random_state=seed
    )
    return Digits(train_images, train_labels, test_images, test_labels)


def augment(digits: Digits, copies: int, shift: float, rotation: float, rng: np.random.Generator) -> Digits:
    """Append altered copies of the training images."""
    originals = digits.train_images
    altered_copies = [altered(image, shift, rotation, rng) for _ in range(copies) for image in originals]
    return digits._replace(
        train_images=np.stack([*originals, *altered_copies]),
        train_labels=np.tile(digits.train_labels, 1 + copies),
    )


def altered(image: np.ndarray, shift: float, rotation: float, rng: np.random.Generator) -> np.ndarray:
    """Rotate an image about its centre and shift it, both at random."""
    angle = np.radians(rotation * rng.uniform(-1, 1))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = (np.array(image.shape) - 1) / 2
    moved = centre + shift * rng.uniform(-1, 1, size=2)
    result: np.ndarray = ndimage.affine_transform(image, turn, offset=centre - turn @ moved, order=1)
    return result


if __name__ == "__main__":
    main()

"""Add noise to digits, as a poor scan would: the same amount to training and to test images."""

from __future__ import annotations

import argparse

import numpy as np

from digits._files import read_digits, write_digits

INK = 16.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m digits.noise", description=__doc__)
    parser.add_argument("--in", required=True, dest="source", metavar="NPZ", help="digits to read")
    parser.add_argument("--out", required=True, metavar="NPZ", help="where to write the noisy digits")
    parser.add_argument("--level", type=float, default=0.15, help="standard deviation; 1 is full ink (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (%(default)s)")
    args = parser.parse_args()

    digits = read_digits(args.source)
    rng = np.random.default_rng(args.seed)
    noisy = digits._replace(
        train_images=with_noise(digits.train_images, args.level, rng),
        test_images=with_noise(digits.test_images, args.level, rng),
    )
    write_digits(args.out, noisy)
    print(f"noise of {args.level:g} on {len(noisy.train_images) + len(noisy.test_images)} images: {args.out}")


def with_noise(images: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Add gaussian noise to every pixel, and keep the pixels between paper and ink."""
    return np.clip(images + level * INK * rng.standard_normal(images.shape), 0.0, INK)


if __name__ == "__main__":
    main()

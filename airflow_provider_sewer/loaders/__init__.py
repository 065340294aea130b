"""Loaders of workflow files."""

"""Workflow files with stages in YAML."""

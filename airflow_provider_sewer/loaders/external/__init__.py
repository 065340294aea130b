"""Workflow files that only another interpreter can import."""

"""Exporters of workflows: VS Code debug configurations, diagrams and JSON.

The output ends with a line break and is deterministic.
"""

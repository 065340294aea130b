"""Exporter of a workflow to Argo Workflows, through Hera."""

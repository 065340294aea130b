"""From a file to a workflow: reading what a person wrote."""

"""From a command to a process that is followed to its end, and from a workflow to all of them."""

"""Reports on recorded runs: a page, a table, and advice on requests."""

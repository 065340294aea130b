"""Loading of workflow files with another interpreter."""

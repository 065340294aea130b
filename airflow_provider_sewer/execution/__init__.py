"""Local execution: processes of commands, tasks with their products, and workflows."""

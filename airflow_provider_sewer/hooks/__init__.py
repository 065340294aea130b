"""What a connection holds, for operators to use."""

"""What an auditor runs. Nothing here imports a filter, or runs anything that a recipe or a run names."""

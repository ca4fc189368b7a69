"""What a run writes for people to train on: one output format a file."""

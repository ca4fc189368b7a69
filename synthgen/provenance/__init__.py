"""What proves where a dataset came from: digests and the manifest."""

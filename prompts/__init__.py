"""The prompts that ship, read as package data."""

"""The recipes that ship, read as package data."""

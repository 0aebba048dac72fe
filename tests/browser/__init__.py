"""The trading page in a real browser."""

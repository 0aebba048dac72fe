"""Crossbook: a limit order book that lives in Redis, behind Flask."""

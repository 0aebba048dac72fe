"""Traders on generated order flow: `python -m app simulate`. A client like any other: it knows the
public REST API and the domain's numbers, and must not know engine, stores or Flask.

Floats decide here what somebody wants; whatever is sent is whole ticks and lots, written exactly.
"""

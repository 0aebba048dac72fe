"""Benchmarks of the whole way of an order, as ratios within one run: this machine's speed cancels
out. `make bench` runs all, `python -m tests.benchmarks --help` says how to run one.
"""

"""The parts of `python -m app verify`, one subject each. Must not change anything anywhere."""

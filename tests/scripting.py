"""Small scripts of the tests' own, known to Redis like the product's."""

import hashlib

from app.engine.scripts import Script


def script(source: str) -> Script:
    """A script from its text."""
    return Script("test", source, hashlib.sha1(source.encode()).hexdigest())

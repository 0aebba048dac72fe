"""Defects put into copies of the product, one at a time, to see that the suite notices each."""

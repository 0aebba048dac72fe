"""The tests, and the independent model of a book that they compare the product with."""

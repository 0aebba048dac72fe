"""The only door to the books: key names, scripts, and the commands that call them. Knows no Flask."""

"""The only door to the books: key names, scripts, the commands that call them. No Flask."""

"""Redis and Postgres as child processes, for machines that run neither, and what supervises them.
Knows how servers are found, started and stopped; must not know what Crossbook keeps in them.
"""

"""What trades mean to those who made them: who owes what to whom once they are settled."""

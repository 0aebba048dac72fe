"""The trading page: its files, and how the chart library gets here."""

"""The live feed: follows the event streams and fans them out. Knows neither Flask nor Postgres."""

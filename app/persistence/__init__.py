"""The durable side: migrations, the persister, queries. Must not know Flask or the feed."""

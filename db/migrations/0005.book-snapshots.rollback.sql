DROP TABLE IF EXISTS book_snapshot_parts;
DROP TABLE IF EXISTS book_snapshots;

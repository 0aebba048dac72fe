DROP TABLE IF EXISTS stream_positions;
DROP TABLE IF EXISTS instruments;

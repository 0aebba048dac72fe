"""What the outside talks to: REST and WebSocket. Decodes, calls engine and queries, encodes."""

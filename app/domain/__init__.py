"""The words of the exchange: instruments, orders, events, refusals. Pure, without I/O."""

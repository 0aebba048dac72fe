"""The words of the exchange: instruments, orders, events and refusals. Pure; imports nothing of ours."""

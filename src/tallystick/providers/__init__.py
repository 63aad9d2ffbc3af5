"""The outside world: payment providers behind one Protocol.

Owns: talking to the network, or, in the sandbox, behaving as a bank would.
Does not own: what a payment means; flows decide that, outside any transaction, with an idempotency key.
"""

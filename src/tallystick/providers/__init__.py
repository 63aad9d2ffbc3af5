"""The outside world, each part behind a Protocol: payment providers, and what AI models cost.

Owns: talking to the network, or, in the sandbox, behaving as a bank would; reading other people's price lists.
Does not own: what a payment means; flows decide that, outside any transaction, with an idempotency key. Nor what
a call costs: core computes it.
"""

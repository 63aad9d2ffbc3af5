"""Events out of a queue, acknowledged when they are on disk.

Owns: reading a message as an event, what is done with it for each outcome, where refused ones are kept.
Does not own: whether an event counts (`flows.ingest`), how commits are shared (`flows.batcher`).
Promises: a message is acknowledged after the commit that counted it, or after it was kept where somebody sees it;
whatever dies in between, it comes again and is counted once.
"""

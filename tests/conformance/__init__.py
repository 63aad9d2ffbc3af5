"""Outside judges: the official SDKs, unmodified, and what they ask of a server."""

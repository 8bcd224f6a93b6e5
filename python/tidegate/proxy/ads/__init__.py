"""Aggregated discovery, state of the world: `protocol` is the conversation (sans-IO), `client` the stream."""

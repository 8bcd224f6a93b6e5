"""Aggregated discovery: `protocol` (state of the world) and `delta` (incremental) are the conversation, sans-IO, with
`patience` for silence; `client` is the stream."""

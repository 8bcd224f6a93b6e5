"""`tidegate discovery`: service registries and routing rules in, xDS out.

The packages are the way of a configuration change, each importing only what stands before it:
`sources` (where resources come from) -> `crd` (one resource, validated) -> `services` (the mesh as one immutable
snapshot) -> `translate` (pure: a proxy and a snapshot in, protobuf messages out) -> `serve` (debounce, ADS, pages).
`app` puts them together. Nothing here knows the agent or the proxy process.
"""

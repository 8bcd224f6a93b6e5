"""Serving: changes debounced, then pushed to every connected proxy in the order that breaks nothing.

`session` is the protocol (no sockets, no clock); `ads` drives it over grpc.aio; `web` shows the debug pages.
"""

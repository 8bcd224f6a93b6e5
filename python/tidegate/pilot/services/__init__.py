"""The unified service model: what all registries and rules become, as one immutable snapshot.

Knows resources; must not know proxies, xDS or how anything is served.
"""

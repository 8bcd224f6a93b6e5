"""(ProxyView, MeshSnapshot) -> listeners, clusters, routes and endpoints. Pure functions only.

What comes out is what Istio 1.0's Pilot sent (the names, the order of domains, one listener per port), in xDS v3. Knows
Envoy's messages; must not know streams, versions or who asked.
"""

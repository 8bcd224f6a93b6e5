"""Side-by-side measurements: tidegate, Envoy, HAProxy and nginx on the same work in the same run."""

"""`tidegate iptables`: sends a pod's traffic to its proxy.

`rules` decides (pure), `apply` does, `app` is the command.
"""

"""`tidegate agent`: the small process beside the proxy.

`bootstrap` says what the proxy shall start with (pure), `supervise` keeps it running, `status` tells whether it is
ready, `app` puts them together. Standard library only, and little of that: the agent is counted into every pod.
"""

"""`tidegate agent`: the small process beside the proxy.

`plan` works out what to run, once, in a process of its own: `bootstrap` says what the proxy shall start with (pure).
`app` is what stays: `supervise` keeps the proxy running, `status` tells whether it is ready. Standard library only, and
little of that: the agent is counted into every pod's memory.
"""

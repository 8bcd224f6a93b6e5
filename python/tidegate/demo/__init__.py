"""`tidegate demo bookinfo`: a whole mesh on this machine, torn down to the last file when it ends.

`plan` says what there will be (names, addresses, files), `host/` makes it happen on this machine (namespaces,
processes, leftovers of earlier runs), `mesh` brings it up and down, `steps` and `checks` look at it while it runs,
`screen` writes. `bookinfo/` holds the applications, which know nothing of any mesh.
"""

"""`tidegate proxy`: the Python side of the data-plane process.

`ads` and `filesystem` bring configuration in, `engine` hands it to the native data plane, `app` puts them together on
one thread. None of it ever sees a connection or a request; if all of it stalled, traffic would go on.
"""

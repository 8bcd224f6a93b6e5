"""tidegate: a service-mesh proxy and its control plane.

Nothing is imported here: the agent must stay small, and the command line imports lazily (see `tidegate.cli`).
"""

__all__ = ["__version__"]

__version__ = "0.1.0"

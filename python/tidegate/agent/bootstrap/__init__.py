"""Settings -> the bootstrap document. Pure: no file, no environment, no clock."""

from tidegate.agent.bootstrap.document import bootstrap, node_metadata

__all__ = ["bootstrap", "node_metadata"]

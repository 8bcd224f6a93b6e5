"""This machine: network namespaces, child processes, and what a killed demo left behind. Knows no mesh."""

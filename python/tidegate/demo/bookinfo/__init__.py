"""Istio's Bookinfo in small: productpage, details, reviews and ratings on their usual paths.

Ordinary applications: they know each other by name only (`http://details:9080`), pass tracing headers on, and know
nothing of a mesh. Standard library only.
"""

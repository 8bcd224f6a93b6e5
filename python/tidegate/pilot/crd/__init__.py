"""Kubernetes and Istio resources as frozen dataclasses, one module per kind.

Knows one document at a time: text positions, types, ranges. Must not know other resources, services or xDS.
"""

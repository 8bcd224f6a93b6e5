"""Keeps the proxy running: `command` says what to start, `supervisor` starts it, waits, and starts it again.

Nothing is imported here: the long-lived half of the agent needs the supervisor and not the rest.
"""

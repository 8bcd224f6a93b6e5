"""Where resources come from. Today: a directory of files.

A source yields validated resources and rejections; it must not know what they mean together.
"""

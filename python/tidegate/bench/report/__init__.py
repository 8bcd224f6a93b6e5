"""Results as one JSON document, and that document as a table, as a page and in pytest-benchmark's schema.

Must not know how they were measured.
"""

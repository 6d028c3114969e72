"""The writes, one noun per file: each function is one conversation, in the order in which it is held.

A conversation reads what it must know (whose id, which tag), sends its one write, and says how sure it is. Before the
write a failed read is harmless and ends in that read's outcome; after it, only the write's own answer counts.
``Dialogue`` carries what all of them share.
"""

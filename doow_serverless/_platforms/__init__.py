"""What each platform knows: deadlines, what names a piece of work, code after the response.

One module for each platform, loaded only where something tells that it is there; which, says the
table in ``_handlers/platform.py``.
"""

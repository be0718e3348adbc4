"""The version, read by the build and sent with every batch."""

__version__ = "0.1.0"

"""What a developer runs on their own machine: the ingest, and a Lambda runtime that freezes."""

from doow_serverless.local._faults import Fault
from doow_serverless.local._posts import Post
from doow_serverless.local.ingest import Ingest

__all__ = ["Fault", "Ingest", "Post"]

"""Who uses Powertools pays for it, and nobody else."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("aws_lambda_powertools")


def test_powertools_is_imported_by_those_who_use_it() -> None:
    """Neither the package nor the middleware and the record handlers import Powertools."""
    script = """if True:
        import sys, doow_serverless
        assert "doow_serverless.powertools" not in sys.modules
        from doow_serverless.powertools import DoowMiddleware, record_transaction
        DoowMiddleware(); record_transaction(lambda record: None)
        assert "aws_lambda_powertools" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)

"""What doow-serverless costs, measured beside a bare ``requests.Session.post`` in the same run."""

"""The same with doow-serverless, configured by variables."""

import doow_serverless as doow


@doow.tracked
def handler(_event: object, _context: object) -> str:
    for number in range(10):
        doow.track("tokens", number + 1)
    return "done"

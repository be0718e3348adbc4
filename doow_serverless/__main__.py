"""``python -m doow_serverless``: the command line."""

from doow_serverless.cli import main

if __name__ == "__main__":
    main()

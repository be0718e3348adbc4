"""``python -m doow_serverless``: the command line."""

from doow_serverless.cli.main import main

if __name__ == "__main__":
    main()

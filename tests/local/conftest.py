"""The local ingest by itself, over real HTTP: it answers and fails as Doow and networks do."""

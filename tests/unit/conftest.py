"""Logic by itself: no network, a clock of our own where time counts, threads where they are it."""

"""``python -m tests.campaign.stories``: ten million facts, in any order, on the outbox's state."""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.unit.delivery.any_order import Story

FACTS_A_STORY = 200


def main() -> int:
    """Tell stories until so many facts have happened; 1 if one of them goes wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.stories", description=__doc__)
    parser.add_argument("--facts", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    chosen = parser.parse_args()
    say = sys.stdout.write
    say(f"seed {chosen.seed}, {chosen.facts:,} facts\n")
    chance = random.Random(chosen.seed)
    began = time.monotonic()
    for _ in range(0, chosen.facts, FACTS_A_STORY):
        story = chance.randbytes(2 * FACTS_A_STORY)
        try:
            Story().tell(story)
        except AssertionError as wrong:
            say(f"{wrong}\nagain: Story().tell(bytes.fromhex({story.hex()!r}))\n")
            return 1
    say(f"all went well, in {time.monotonic() - began:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

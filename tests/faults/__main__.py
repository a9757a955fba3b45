"""The short form: ``python -m tests.faults OUT.json`` writes the counts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.faults.campaign import Campaign

if __name__ == "__main__":
    campaign = Campaign()
    campaign.short()
    Path(sys.argv[1]).write_text(json.dumps(campaign.tally.values()), encoding="utf-8")

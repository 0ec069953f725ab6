#!/usr/bin/env python
"""Write RULES.md: memory, gradient error and cost of every learning rule.

tools/compare_rules.py
"""

import argparse
from pathlib import Path

from crbp_d2.analysis.rules import compare_rules, rules_page

PAGE = Path(__file__).resolve().parent.parent / "RULES.md"

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    PAGE.write_text(rules_page(compare_rules(), "tools/compare_rules.py"))
    print(f"written: {PAGE}")

"""Ask one question, in the guest: python3 -m bench.inside [--quick] QUESTION. Prints the answer as JSON."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json

from bench import machine
from bench.questions import NAMES
from bench.table import Answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer units, rates and rounds")
    parser.add_argument("question", choices=NAMES)
    options = parser.parse_args()
    machine.stop_guards()
    answer: Answer = importlib.import_module(f"bench.questions.{options.question}").ask(options.quick)
    print(json.dumps(dataclasses.asdict(answer), ensure_ascii=False))


if __name__ == "__main__":
    main()

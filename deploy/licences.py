"""The licence of each package in the environment whose Python runs this, as a table: `python licences.py`.

What a package says of itself: its SPDX expression, else its classifiers, else its licence field. A package
that says nothing is listed with a question mark, and makes the exit status 1.
"""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, distributions

PREFIX = "License :: "
TOO_LONG = 60
"""A licence field longer than this is a licence's text, not its name."""


def main() -> int:
    packages = sorted(distributions(), key=lambda package: package.metadata["Name"].lower())
    licences = {package: licence(package) for package in packages}
    print("| package | version | licence |\n|---|---|---|")
    for package, name in licences.items():
        print(f"| {package.metadata['Name']} | {package.version} | {name or '?'} |")
    return 0 if all(licences.values()) else 1


def licence(package: Distribution) -> str:
    """Empty where the package does not say."""
    metadata = package.metadata
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    classifiers = metadata.get_all("Classifier") or []
    named = [
        text.rsplit(" :: ", 1)[1]
        for text in classifiers
        if text.startswith(PREFIX + "OSI") or (text.count("::") == 1 and text.startswith(PREFIX))
    ]
    if named:
        return "; ".join(named)
    field = metadata["License"].strip() if "License" in metadata else ""
    first_line = field.splitlines()[0].strip() if field else ""
    return first_line[:TOO_LONG]


if __name__ == "__main__":
    sys.exit(main())

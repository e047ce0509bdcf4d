"""unitmem schema"""

from __future__ import annotations

from unitmem.policyfile.schema import policy_file_schema
from unitmem.report.document import emit


def print_schema() -> None:
    """Print the JSON Schema of policy files, for editors.

    With yaml-language-server, write it to a file and begin a policy file with
    "# yaml-language-server: $schema=FILE". It knows less than `unitmem check`, which reads conditions.
    """
    emit(policy_file_schema())

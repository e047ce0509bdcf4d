"""The names by which journal entries about decisions are known: `tell` writes them, and `explain` reads them back.

See systemd.journal-fields(7).
"""

from __future__ import annotations

from unitmem.unit import ManagerKind

DECISION_MESSAGE_ID = "d1ecd066ddcc4fde918b1e2af62bf70f"
OUTCOME_MESSAGE_ID = "0764b90c0b544cf4a7569e666628681b"
UNKNOWN_MESSAGE_ID = "03f96251d69c40ff990e76adeab0ef43"
SET_BACK_MESSAGE_ID = "11bb2b14a3934feaae646ddbac4c7893"
RESET_MESSAGE_ID = "d53efb50424a4292aee84d44c6f7b0ea"

UNIT_FIELD = "UNITMEM_UNIT"
DESCRIPTION_FIELD = "UNITMEM_DESCRIPTION"
POLICY_FIELD = "UNITMEM_POLICY"
STEP_FIELD = "UNITMEM_STEP"
ACTION_FIELD = "UNITMEM_ACTION"
RESULT_FIELD = "UNITMEM_RESULT"
UID_FIELD = "UNITMEM_UID"
"""Of a reset, who asked for it."""
DECIDED_FIELD = "UNITMEM_DECIDED_USEC"
"""When it was decided, in microseconds of CLOCK_MONOTONIC: the entry is written once the action has begun."""
INVOCATION_FIELD = "OBJECT_SYSTEMD_INVOCATION_ID"
OBJECT_FIELDS = {
    ManagerKind.SYSTEM: "OBJECT_SYSTEMD_UNIT",
    ManagerKind.USER: "OBJECT_SYSTEMD_USER_UNIT",
}
"""The field with the unit that an entry is about, by manager."""

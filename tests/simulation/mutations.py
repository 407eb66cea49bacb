"""Ten mutations of the product that the simulation must find, each a change to one line.

`python -m simulation.mutate` applies each to a copy of the project and finds the first seed that fails.
The list was written before the invariants that find them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One change to the product's code.

    Attributes:
        area: The behaviour that it breaks.
        path: The file, relative to the repository.
        before: Text that occurs once in the file.
        after: The replacement.
    """

    area: str
    path: str
    before: str
    after: str


MUTATIONS = (
    Mutation(
        area="cleanup",
        path="tasks/steps/cleanup.py",
        before="for name in resources.containers:",
        after="for name in ():",
    ),
    Mutation(
        area="sweep",
        path="tasks/steps/sweep.py",
        before="    return expires_at\n",
        after="    return expires_at + timedelta(days=365)\n",
    ),
    Mutation(
        area="retries",
        path="tasks/azure/client.py",
        before='"PUT", "POST", "PATCH", "DELETE"',
        after='"PUT", "PATCH", "DELETE"',
    ),
    Mutation(
        area="verdicts",
        path="tasks/steps/collect.py",
        before='if outcome.result != "success" or outcome.exit_code != 0:',
        after="if False:",
    ),
    Mutation(
        area="deadline",
        path="tasks/steps/monitor.py",
        before="if stop_reason is None and clock.now() > deadline_at + DEADLINE_GRACE:",
        after="if False:",
    ),
    Mutation(
        area="ownership",
        path="tasks/model/naming.py",
        before='return metadata.get("owner") == OWNER and metadata.get("flow_run_id") == flow_run_id',
        after="return True",
    ),
    Mutation(
        area="hashes",
        path="tasks/azure/blob.py",
        before="is_right = hashlib.sha256(content).hexdigest() == sha256",
        after="is_right = True",
    ),
    Mutation(
        area="signatures",
        path="tasks/azure/sas_expiry.py",
        before="return expires_at < last_use_at(run) and expires_at - now < MIN_REMAINING_LIFETIME",
        after="return False",
    ),
    Mutation(
        area="adoption",
        path="tasks/steps/start.py",
        before='if job.state != "active" or CLEANUP_MARK in job.metadata:',
        after="if False:",
    ),
    Mutation(
        area="exit status",
        path="flows/cli/run.py",
        before="return EXIT_FAILED if outcome.is_failed else 0",
        after="return 0",
    ),
)

"""The rules of nodes: how they boot, restart, fail and leave their pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from localbatch.account.records import Node, Pool, RemoveFiles
from localbatch.account.store import Store, key_of
from localbatch.rules.agenda import Agenda
from localbatch.rules.chores import ChoreRules
from localbatch.rules.failures import NODE_ENDED
from localbatch.rules.slots import NodeSlots
from localbatch.rules.tasks import TaskRules
from localbatch.wire import new_node_id


@dataclass(frozen=True)
class NodeRules:
    """Boots, maintains, loses and removes nodes."""

    store: Store
    agenda: Agenda
    slots: NodeSlots
    tasks: TaskRules
    chores: ChoreRules

    def review(self, node: Node, now: datetime) -> None:
        """Let a node continue when its transitional state has lasted long enough."""
        pool, pace = self.slots.pool_of(node), self.agenda.pace
        if not pool:
            return
        if node.state == "idle" and node.scheduling == "disabled":
            # The state offline follows when the last Batch task ends.
            self.slots.move(node, "disable", now)
        steps: dict[str, tuple[float, Callable[[Pool, Node, datetime], None]]] = {
            "creating": (pace.creating, self._boot),
            "starting": (pace.starting, self.chores.start_up),
            "rebooting": (pace.rebooting, self._boot),
            "reimaging": (pace.rebooting, self._boot),
            "deallocating": (pace.rebooting, self._deallocate),
            "preempted": (pace.preempted, self._recover),
            "leavingpool": (pace.leaving, self._remove),
        }
        seconds, step = steps.get(node.state, (0.0, None))
        # With the option taskcompletion, a node goes down only after its Batch tasks.
        if step and not node.tasks and self.agenda.has_lasted(node, seconds, now):
            step(pool, node, now)

    def add(self, pool: Pool, *, dedicated: bool, now: datetime) -> None:
        """Add a new node to a pool."""
        node = Node(
            id=new_node_id(dedicated=dedicated),
            pool_id=pool.id,
            dedicated=dedicated,
            slots=pool.spec["taskSlotsPerNode"],
            state="creating",
            state_at=now,
            allocated_at=now,
            number=next(pool.node_numbers),
        )
        pool.nodes[key_of(node.id)] = node
        self.store.mark(node)

    def leave(self, node: Node, option: str, now: datetime) -> None:
        """Start to remove a node from its pool."""
        self.slots.move(node, "leave", now)
        self.vacate(node, option, now)

    def vacate(self, node: Node, option: str, now: datetime) -> None:
        """End or requeue everything that runs on a node. With any other option, its Batch tasks may finish."""
        self.chores.vacate(node, now)
        self.tasks.vacate(node, option, now, requeue_preparing=True)

    def _boot(self, _pool: Pool, node: Node, now: datetime) -> None:
        if node.state == "reimaging":
            self._wipe(node)
        self.slots.move(node, "booted", now)

    def _deallocate(self, _pool: Pool, node: Node, now: datetime) -> None:
        self._wipe(node)
        self.slots.move(node, "deallocated", now)

    def _remove(self, pool: Pool, node: Node, _now: datetime) -> None:
        self._wipe(node)
        pool.free.update(node, 0)
        del pool.nodes[key_of(node.id)]
        self.store.mark(pool)

    def _wipe(self, node: Node) -> None:
        """Remove all files of a node, and forget which jobs were prepared there."""
        for key in node.preparations:
            job = self.store.jobs.get(key)
            if job:
                job.prepared.pop(node.id, None)
                self.store.mark(job)
        node.preparations.clear()
        node.releases.clear()
        node.users.clear()
        self.store.outbox.append(RemoveFiles(node=node, directory=""))

    # What clients request.

    def maintain(self, node: Node, event: str, option: str, now: datetime) -> None:
        """Start to reboot, reimage or deallocate a node."""
        self.slots.move(node, event, now)
        self.vacate(node, option, now)
        if event == "deallocate":
            node.scheduling = "disabled"
        if event == "reboot":
            # The job preparation task runs again after a reboot, unless the client opted out or it failed.
            node.preparations = {
                key: chore
                for key, chore in node.preparations.items()
                if chore.execution.failure != NODE_ENDED
                and (chore.execution.failure or not chore.spec["rerunOnNodeRebootAfterSuccess"])
            }

    def start(self, node: Node, now: datetime) -> None:
        """Start a deallocated node."""
        self.slots.move(node, "start", now)

    def disable_scheduling(self, node: Node, option: str, now: datetime) -> None:
        """Stop starting Batch tasks on a node. It is offline when none is running."""
        node.scheduling = "disabled"
        self.tasks.vacate(node, option, now, requeue_preparing=False)
        self.slots.update(node)
        self.store.mark(node)

    def enable_scheduling(self, node: Node, now: datetime) -> None:
        """Allow Batch tasks on a node again."""
        node.scheduling = "enabled"
        if node.state == "offline":
            self.slots.move(node, "enable", now)
        self.slots.update(node)

    # What faults do. Each raises IllegalTransition if the state of the node does not allow it.

    def preempt(self, node: Node, now: datetime) -> None:
        """Preempt a node. Its Batch tasks are requeued, its files are lost, and it stays in the pool."""
        self._lose(node, "preempt", now)
        self._wipe(node)

    def lose(self, node: Node, now: datetime) -> None:
        """Set the state of a node to unknown, and requeue its Batch tasks."""
        self._lose(node, "lose", now)

    def make_unusable(self, node: Node, code: str, message: str, now: datetime) -> None:
        """Make a node unusable, with an entry in its errors, and requeue its Batch tasks."""
        self._lose(node, "break", now)
        node.errors = [{"code": code, "message": message}]

    def remove_abruptly(self, node: Node, now: datetime) -> None:
        """Remove a node and its files at once, and requeue its Batch tasks."""
        if node.state != "leavingpool":
            self.slots.move(node, "leave", now)
        self.vacate(node, "requeue", now)
        self._remove(self.store.pool(node.pool_id), node, now)

    def recover(self, node: Node, now: datetime) -> None:
        """Create a lost node again, with the same id and without files."""
        self.slots.move(node, "recover", now)
        self._wipe(node)
        node.errors = []
        node.booted_at = node.start_task = None

    def _lose(self, node: Node, event: str, now: datetime) -> None:
        self.slots.move(node, event, now)
        self.vacate(node, "requeue", now)

    def _recover(self, _pool: Pool, node: Node, now: datetime) -> None:
        self.recover(node, now)

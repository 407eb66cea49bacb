"""The states of nodes, and the task slots that are free on them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from localbatch.account import states
from localbatch.account.records import Node, Pool
from localbatch.account.store import Store, key_of
from localbatch.rules.agenda import Agenda


@dataclass(frozen=True)
class NodeSlots:
    """Changes the states of nodes, and keeps the index of free slots of their pools up to date."""

    store: Store
    agenda: Agenda

    def pool_of(self, node: Node) -> Pool | None:
        """Return the pool of a node, or None if the node has left it."""
        pool = self.store.pools.get(key_of(node.pool_id))
        return pool if pool and pool.nodes.get(key_of(node.id)) is node else None

    def move(self, node: Node, event: str, now: datetime) -> None:
        """Apply an event to a node.

        Raises:
            IllegalTransition: The state of the node does not allow it.
        """
        self.agenda.move(node, states.NODE, event, now)
        self.update(node)

    def update(self, node: Node) -> None:
        """Update the index with the free slots of a node. If there are more, its pool assigns Batch tasks."""
        pool = self.pool_of(node)
        if pool and pool.free.update(node, node.slots_free):
            self.store.unassigned.add(key_of(pool.id))

"""A group in memory: the port's contract in its plainest form, for tests and simulations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock.core.errors import Unavailable
from penstock.core.generations import Generations
from penstock.ports.consumer import Batch, Owner
from penstock.ports.log import Log


class MemoryGroup:
    """Shares the partitions of a log out among its members, moving as few as it can.

    A member hears of changes when it polls. One that is evicted hears that it lost its partitions
    at a later poll, and joins anew; until then it reads on.

    Args:
        log: The log.
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        self.members: list[MemoryConsumer] = []
        self.owners: dict[int, MemoryConsumer] = {}
        """Who owns a partition; one that is on its way from one member to another is nobody's."""
        self.wanted: dict[int, MemoryConsumer] = {}
        """Who is to own a partition."""
        self.committed: dict[int, int] = {}

    def member(self) -> MemoryConsumer:
        """Return a new member, which has not joined yet."""
        return MemoryConsumer(self)

    def balance(self) -> None:
        """Share partitions out: each member gets as many as any other, or one more."""
        self.wanted = {p: one for p, one in self.wanted.items() if one in self.members}
        if not self.members:
            return
        partitions = max(one.known for one in self.members)
        most = -(-partitions // len(self.members))
        counts = {id(one): 0 for one in self.members}
        kept: dict[int, MemoryConsumer] = {}
        for partition, one in sorted(self.wanted.items()):
            if counts[id(one)] < most and partition < one.known:
                kept[partition] = one
                counts[id(one)] += 1
        for partition in range(partitions):
            if partition not in kept:
                # A member gets only what it has heard of.
                may = [member for member in self.members if partition < member.known]
                one = min(may, key=lambda member: counts[id(member)])
                kept[partition] = one
                counts[id(one)] += 1
        # With one more here and one less there, nobody moves: sticky.
        while True:
            low = min(self.members, key=lambda member: counts[id(member)])
            high = max(self.members, key=lambda member: counts[id(member)])
            moving = [p for p, one in kept.items() if one is high and p < low.known]
            if counts[id(high)] - counts[id(low)] <= 1 or not moving:
                break
            partition = max(moving)
            kept[partition] = low
            counts[id(high)] -= 1
            counts[id(low)] += 1
        self.wanted = kept

    def evict(self, member: MemoryConsumer, deaf_polls: int = 0) -> None:
        """Take a member for dead: others get its partitions, and it hears of it so many polls later."""
        if member in self.members:
            self.members.remove(member)
        member.deaf_polls = deaf_polls
        member.evicted = True
        self.release(member, list(self.owners))
        self.balance()

    def release(self, member: MemoryConsumer, partitions: Iterable[int]) -> None:
        """Take partitions from a member, those that it owns."""
        for partition in partitions:
            if self.owners.get(partition) is member:
                del self.owners[partition]


class MemoryConsumer:
    """One member of a group in memory."""

    def __init__(self, group: MemoryGroup) -> None:
        self.group = group
        self.known = group.log.partitions
        """How many partitions it has heard of."""
        self.held: set[int] = set()
        """What it believes to own."""
        self.positions: dict[int, int] = {}
        self.paused: set[int] = set()
        self.evicted = False
        self.deaf_polls = 0
        self._owner: Owner | None = None
        self._turn = 0

    def join(self, owner: Owner) -> None:
        """Ask the group for a share of the partitions."""
        self._owner = owner
        self.group.members.append(self)
        self.group.balance()

    def grow(self, generations: Generations) -> None:
        """Ask for a share of more partitions, too."""
        self.known = generations.partitions
        if not self.evicted and self._owner is not None:
            self.group.balance()

    def poll(self, limit: int, wait_ms: int) -> list[Batch]:
        """Hear what has changed, and return records; it never waits."""
        if self._owner is None:
            raise Unavailable("E470", "this member has not joined", fix="join before polling")
        self._hear(self._owner)
        log = self.group.log
        order = sorted(self.held - self.paused)
        self._turn += 1
        batches: list[Batch] = []
        for place in range(len(order)):
            # Another first each time: none is starved by those before it.
            partition = order[(place + self._turn) % len(order)]
            if not log.first(partition) <= self.positions[partition] <= log.head(partition):
                self._owner.astray([partition])
                continue
            records = log.read(partition, self.positions[partition], limit) if limit else []
            if records:
                self.positions[partition] = records[-1].offset + 1
                limit -= len(records)
                batches.append(Batch(partition, records))
        return batches

    def _hear(self, owner: Owner) -> None:
        group = self.group
        if self.evicted:
            if self.deaf_polls > 0:
                self.deaf_polls -= 1
                return
            self.evicted = False
            gone = sorted(self.held)
            self._forget(gone)
            owner.lost(gone)
            group.members.append(self)
            group.balance()
        gone = sorted(p for p in self.held if group.wanted.get(p) is not self)
        if gone:
            owner.revoked(gone)
            # Whoever was stopped while it wrote may have been taken for dead meanwhile.
            self._forget(gone)
            group.release(self, gone)
        new = sorted(p for p, one in group.wanted.items() if one is self and p not in group.owners)
        if new and not self.evicted:
            group.owners.update(dict.fromkeys(new, self))
            self.held.update(new)
            positions = owner.assigned(new)
            for partition in new:
                if partition in positions:
                    self.positions[partition] = positions[partition]
                else:
                    self.paused.add(partition)
                    self.positions[partition] = 0

    def _forget(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self.held.discard(partition)
            self.paused.discard(partition)
            self.positions.pop(partition, None)

    def seek(self, partition: int, offset: int) -> None:
        """Read on from an offset."""
        self.positions[partition] = offset

    def pause(self, partition: int) -> None:
        """Bring no records of a partition."""
        self.paused.add(partition)

    def resume(self, partition: int) -> None:
        """Bring records of a partition again."""
        self.paused.discard(partition)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Note offsets; of what another owns by now nothing is noted."""
        for partition, offset in offsets.items():
            if self.group.owners.get(partition) is self:
                self.group.committed[partition] = offset

    def committed(self, partition: int) -> int:
        """Return what was committed last."""
        return self.group.committed.get(partition, -1)

    def head(self, partition: int) -> int:
        """Return the offset that the next record gets."""
        return self.group.log.head(partition)

    def close(self) -> None:
        """Give back what is owned, and leave the group."""
        if self._owner is not None and self.held:
            gone = sorted(self.held)
            (self._owner.lost if self.evicted else self._owner.revoked)(gone)
            self._forget(gone)
            self.group.release(self, gone)
        if self in self.group.members:
            self.group.members.remove(self)
            self.group.balance()
        self._owner = None

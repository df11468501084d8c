"""Module registry is the suite every registry passes: what the contract's docstrings promise.

    class TestZebra(RegistryConformance):
        def make(self) -> Registry:
            return ZebraRegistry(self.server.address)

The tests are coroutines: run them with pytest-asyncio in auto mode.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any

import pytest

from shoal.errors import BadRequest
from shoal.registry import Endpoint, Node, Record
from shoal.testing.conformance._registry import (
    ENDPOINTS,
    VALUE,
    end,
    make_record,
    named,
    node_ids,
    sorted_nodes,
    step,
    unique,
)
from shoal.testing.conformance._registry_watch import RegistryWatches


class RegistryConformance(RegistryWatches):
    """Two registries of one backend: what one side registers, the other finds.

    The attributes of RegistryTools say what a backend truly cannot do; a suite of yours sets them.
    """

    # What is registered is found.

    async def test_nobody_runs_an_unknown_service(self) -> None:
        async with self._two() as (one, _):
            assert list(await one.get(unique())) == []

    async def test_a_record_is_found_as_it_was_registered(self) -> None:
        async with self._two() as (one, other):
            metadata = {"type": "helloworld"} if self.service_metadata else {}
            node = {"protocol": "mucp", "transport": "http", "größe": "ä" * 300, "empty": ""}
            record = make_record(unique(), node=node, endpoints=ENDPOINTS, metadata=metadata)
            await self.publish(one, record)
            await self._becomes(lambda: other.get(record.name), [record])
            assert list(await one.get(record.name)) == [record]

    async def test_an_ipv6_address_is_found(self) -> None:
        async with self._two() as (one, other):
            record = make_record(unique(), address="[fd00::12]:8080")
            await self.publish(one, record)
            await self._becomes(lambda: other.get(record.name), [record])

    async def test_many_endpoints_are_found(self) -> None:
        async with self._two() as (one, other):
            endpoints = tuple(Endpoint(f"Wide.Method{i:02}", VALUE, VALUE) for i in range(60))
            record = make_record(unique(), endpoints=endpoints)
            await self.publish(one, record)
            await self._becomes(lambda: other.get(record.name), [record])

    async def test_nodes_of_a_version_are_merged(self) -> None:
        async with self._two() as (one, other):
            name = unique()
            first, second = make_record(name, "a"), make_record(name, "b", address="10.0.0.2:81")
            await self.publish(one, first)
            await self.publish(other, second)
            await self._becomes(lambda: node_ids(one, name), {"latest": ["a", "b"]})
            await self._becomes(lambda: node_ids(other, name), {"latest": ["a", "b"]})

    async def test_nodes_of_one_record_are_all_found(self) -> None:
        async with self._two() as (one, other):
            nodes = tuple(Node(f"n{i:02}", f"10.0.0.{i}:80", {"zone": str(i)}) for i in range(20))
            record = Record(unique(), "1", nodes)
            await self.publish(one, record)
            await self._becomes(lambda: sorted_nodes(other, record.name), list(nodes))

    async def test_versions_are_records_of_their_own(self) -> None:
        async with self._two() as (one, other):
            name = unique()
            await self.publish(one, make_record(name, "a", version="1.0.0"))
            await self.publish(one, make_record(name, "b", version="2.0.0"))
            await self._becomes(lambda: node_ids(other, name), {"1.0.0": ["a"], "2.0.0": ["b"]})

    async def test_services_with_similar_names_are_apart(self) -> None:
        async with self._two() as (one, other):
            name = unique()
            names = [name, f"{name}.mail", f"{name}-mail", f"{name}2", f"go.micro.srv.{name}"]
            for index, each in enumerate(names):
                await self.publish(one, make_record(each, f"n{index}"))
            for index, each in enumerate(names):
                await self._becomes(partial(node_ids, other, each), {"latest": [f"n{index}"]})

    async def test_services_are_sorted_and_named_once(self) -> None:
        async with self._two() as (one, other):
            prefix = unique()
            for name in ("b", "a", "c"):
                await self.publish(one, make_record(f"{prefix}{name}", f"{name}1", version="1"))
                await self.publish(one, make_record(f"{prefix}{name}", f"{name}2", version="2"))

            async def names() -> list[str]:
                found = list(await other.services())
                assert found == sorted(set(found))
                return [name for name in found if name.startswith(prefix)]

            await self._becomes(names, [f"{prefix}a", f"{prefix}b", f"{prefix}c"])

    # What changes is seen.

    async def test_registering_again_adds_no_second_node(self) -> None:
        async with self._two() as (one, other):
            record = make_record(unique())
            await self.publish(one, record)
            await self.publish(one, record)
            await self._becomes(lambda: other.get(record.name), [record])
            assert list(await one.get(record.name)) == [record]

    async def test_a_known_node_is_replaced(self) -> None:
        async with self._two() as (one, other):
            name = unique()
            await self.publish(one, make_record(name, "a", address="10.0.0.1:80"))
            changed = make_record(name, "a", address="10.0.0.1:81", node={"zone": "b"})
            await self.publish(one, changed)
            await self._becomes(lambda: other.get(name), [changed])

    async def test_a_known_node_leaves_its_old_version(self) -> None:
        async with self._two() as (one, other):
            name = unique()
            await self.publish(one, make_record(name, "a", version="1"))
            await self.publish(one, make_record(name, "a", version="2"))
            await self._becomes(lambda: node_ids(other, name), {"2": ["a"]})

    async def test_only_the_given_nodes_are_deregistered(self) -> None:
        async with self._two() as (one, other):
            name = unique()
            stays, goes = make_record(name, "a"), make_record(name, "b", address="10.0.0.2:80")
            await self.publish(one, stays)
            await self.publish(one, goes)
            await self._becomes(lambda: node_ids(other, name), {"latest": ["a", "b"]})
            await self.withdraw(one, goes)
            await self._becomes(lambda: other.get(name), [stays])

    async def test_after_its_last_node_a_service_is_gone(self) -> None:
        async with self._two() as (one, other):
            record = make_record(unique())
            await self.publish(one, record)
            await self._becomes(lambda: node_ids(other, record.name), {"latest": ["a"]})
            await self.withdraw(one, record)
            await self._becomes(lambda: node_ids(other, record.name), {})
            await self._becomes(lambda: named(other, record.name), False)

    async def test_deregistering_what_is_unknown_is_no_error(self) -> None:
        async with self._two() as (one, _):
            record = make_record(unique())
            await one.deregister(record)
            await self.publish(one, record)
            await self.withdraw(one, make_record(record.name, "another"))
            await self._becomes(lambda: node_ids(one, record.name), {"latest": ["a"]})

    async def test_a_node_vanishes_when_it_is_not_refreshed(self) -> None:
        async with self._two() as (one, other):
            name, ttl = unique(), self.ttl or 0.2
            await self.publish(one, make_record(name, "goes", address="10.0.0.2:80"), ttl=ttl)
            await self.publish(one, make_record(name, "stays"), ttl=600)
            await self.publish(one, make_record(name, "refreshed", address="10.0.0.3:80"), ttl=ttl)
            await self.publish(one, make_record(name, "refreshed", address="10.0.0.3:80"), ttl=600)
            await asyncio.sleep(ttl)
            left = ["refreshed", "stays"] if self.ttl else ["goes", "refreshed", "stays"]
            await self._becomes(lambda: node_ids(other, name), {"latest": left})

    @pytest.mark.parametrize("bad", ["no node", "no address"])
    async def test_what_cannot_be_held_is_refused(self, bad: str) -> None:
        async with self._two() as (one, _):
            nodes = () if bad == "no node" else (Node("a", ""),)
            with pytest.raises(BadRequest):
                await one.register(Record(unique(), nodes=nodes))

    async def test_what_is_returned_belongs_to_the_caller(self) -> None:
        async with self._two() as (one, _):
            metadata = {"zone": "a"}
            record = make_record(unique(), node=metadata)
            await self.publish(one, record)
            metadata["zone"] = "changed after it was registered"
            await self._becomes(lambda: node_ids(one, record.name), {"latest": ["a"]})
            found: Any = (await one.get(record.name))[0].nodes[0].metadata
            assert found == {"zone": "a"}
            with contextlib.suppress(TypeError):  # a mapping that cannot be changed is fine too
                found["zone"] = "changed after it was returned"
            assert (await one.get(record.name))[0].nodes[0].metadata == {"zone": "a"}

    async def test_look_ups_at_the_same_time_get_the_same(self) -> None:
        async with self._two() as (one, other):
            record = make_record(unique())
            await self.publish(one, record)
            await self._becomes(lambda: other.get(record.name), [record])
            found = await asyncio.gather(*(other.get(record.name) for _ in range(50)))
            assert all(list(each) == [record] for each in found)

    # Watches.

    async def test_closing_ends_watches(self) -> None:
        async with self._two() as (one, other):
            async with self._watching(other, unique()) as watch:
                await other.close()
                assert await watch.rest() == []
            await self.publish(one, make_record(unique()))

    async def test_closing_forgets_what_this_side_registered(self) -> None:
        async with self._two() as (one, other):
            name = unique()
            both = {"latest": ["mine", "yours"]}
            left = {"own": {"latest": ["yours"]}, "all": {}, "nothing": both}
            await self.publish(one, make_record(name, "mine"))
            await self.publish(other, make_record(name, "yours", address="10.0.0.2:80"))
            await self._becomes(lambda: node_ids(other, name), both)
            await one.close()
            await self._becomes(lambda: node_ids(other, name), left[self.closing_takes])

    async def test_it_can_be_used_again_after_closing(self) -> None:
        async with self._two() as (one, other):
            await one.close()
            await one.close()
            record = make_record(unique())
            async with self._watching(one, record.name) as watch:
                await self.publish(one, record)
                await watch.first(lambda change: change.action != "delete")
            await self._becomes(lambda: other.get(record.name), [record])
            await self._becomes(lambda: one.get(record.name), [record])

    async def test_nothing_runs_on_after_closing(self) -> None:
        before = asyncio.all_tasks()
        async with self._two() as (one, other):
            record = make_record(unique())
            async with self._watching(other, record.name) as watch:
                await self.publish(one, record)
                await watch.first(lambda change: True)
            await other.get(record.name)
            await self.withdraw(one, record)
        assert asyncio.all_tasks() == before

    async def test_a_cancelled_look_up_leaves_nothing(self) -> None:
        async with self._two() as (one, _):
            await one.get(unique())  # connections, if it keeps any, are made
            before = asyncio.all_tasks()
            for asked in (one.get(unique()), one.services()):
                task = asyncio.ensure_future(asked)
                await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            assert asyncio.all_tasks() == before
            record = make_record(unique())
            await self.publish(one, record)
            await self._becomes(lambda: one.get(record.name), [record])

    async def test_a_cancelled_look_up_leaves_others_alone(self) -> None:
        async with self._two() as (one, other):
            record = make_record(unique())
            await self.publish(one, record)
            await self._becomes(lambda: other.get(record.name), [record])
            cancelled, kept = (asyncio.ensure_future(other.get(record.name)) for _ in range(2))
            await asyncio.sleep(0)
            cancelled.cancel()
            assert list(await kept) == [record]

    async def test_a_cancelled_watch_leaves_nothing(self) -> None:
        async with self._two() as (one, _):
            await one.get(unique())
            before = asyncio.all_tasks()
            watch = one.watch()
            running = asyncio.ensure_future(step(watch))
            await self._begun(one, None)
            assert not running.done()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            await end(watch)
            assert asyncio.all_tasks() == before

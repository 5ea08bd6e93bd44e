"""Sightings of one packet on several interfaces: numbered 0, 1, …, all with one sample."""

import collections


def check_copies(check, rows):
    sightings = collections.defaultdict(list)
    for row in rows:
        packet = check.packets[row["number"]]
        # A place shows a packet once: what it shows again is another packet, which looks alike.
        group = next((group for group in sightings[packet.identity()]
                      if packet.sighting is not None and packet.sighting not in group), None)
        if group is None:
            group = {}
            sightings[packet.identity()].append(group)
        group[packet.sighting] = row
    # Cut to pieces between two interfaces, a packet is seen again in packets that are not like it.
    whole = {row["sample_id"] for row in rows if row["match"] == "within"}
    check.twins = sightings
    for groups in sightings.values():
        for group in groups:
            check_group(check, list(group.values()), whole)


def check_group(check, group, whole):
    first = group[0]
    check.compared["copies"] += len(group) - 1
    for expected, row in enumerate(group):
        # One of several ACKs that are alike in all: at the second place time may not tell which, and then nothing is said.
        has_twin = not row["len"] and len(check.twins[check.packets[row["number"]].identity()]) > 1
        if has_twin and row["reason"] == "ambiguous" and check.own_sample(first) is not None:
            check.compared["copies not said"] += 1
            continue
        if row["copy"] != expected and (row["sample_id"] not in whole or row["copy"] < expected):
            check.wrong(row["number"], f"copy is {row['copy']}, the packet was seen {expected} times before")
        # Without a sample of its own a packet has the state of when it was seen.
        own = [check.own_sample(seen) for seen in (first, row)]
        if own != [None, None] and (row["match"], row["sample_id"]) != (first["match"], first["sample_id"]):
            check.wrong(row["number"], f"{row['match']} {row['sample_id']}, but {first['match']} {first['sample_id']} "
                                       f"where it was seen first, in packet {first['number']}")

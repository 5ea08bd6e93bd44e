"""Each packet of a recorded socket has a row for it, and no other packet has one."""

import collections

from capture import text_address


def check_totals(check):
    if check.row["packets"] != check.frames:
        check.wrong(0, f"captures.packets is {check.row['packets']}, the file has {check.frames} frames")
    if check.row["tcp_packets"] != len(check.capture):
        check.wrong(0, f"captures.tcp_packets is {check.row['tcp_packets']}, the file has {len(check.capture)}")
    if check.row["link_type"] != check.link_type:
        check.wrong(0, f"captures.link_type is {check.row['link_type']}, the file has {check.link_type}")


def check_rows(check):
    sockets = collections.defaultdict(list)
    for flow in check.flows.values():
        local = (text_address(flow["local_addr"]), flow["local_port"])
        remote = (text_address(flow["remote_addr"]), flow["remote_port"])
        sockets[local, remote].append(flow)
    expected = {}
    for packet in check.capture:
        for direction, ends in (("out", (packet.source, packet.target)), ("in", (packet.target, packet.source))):
            # One socket after the other may have had the same addresses: they share one expected row.
            for netns in {flow["netns"] for flow in sockets[ends]}:
                same = [flow["id"] for flow in sockets[ends] if flow["netns"] == netns]
                expected[packet.number, direction, netns] = same
    seen = set()
    for row in check.rows:
        if row["flow_id"] not in check.flows:
            if not check.options.port:
                check.wrong(row["number"], f"flow {row['flow_id']} is not of this session")
            continue
        key = (row["number"], row["dir"], check.flows[row["flow_id"]]["netns"])
        if row["flow_id"] not in expected.get(key, ()):
            check.wrong(row["number"], f"row of flow {row['flow_id']} {row['dir']}: the packet is not of that flow")
            continue
        if key in seen:
            check.wrong(row["number"], f"two rows for one socket, {row['dir']}")
        seen.add(key)
        packet = check.packets[row["number"]]
        for column in ("ts_ns", "seq", "ack", "len", "flags", "window"):
            if row[column] != getattr(packet, column):
                check.wrong(row["number"], f"{column} is {row[column]}, captured {getattr(packet, column)}")
    for number, direction, netns in expected.keys() - seen:
        check.wrong(number, f"no row for the socket in netns {netns}, {direction}")
    check.rows = [row for row in check.rows if row["flow_id"] in check.flows and row["number"] in check.packets]

"""The trace and the capture side by side, and what was found wrong."""

import collections
import os

import clocks
from capture import read_capture


class Check:
    """One capture's rows, the samples and packets they are about, and what is wrong with them."""

    def __init__(self, database, path, options):
        self.options = options
        self.violations = []
        self.undecided = 0
        self.unsampled = set()
        self.after_the_end = set()
        self.retransmissions = 0
        self.compared = collections.Counter()
        # (flow, packet): ACKs after whose sample as many segments are selectively acknowledged as they say.
        self.taken_up_in_turn = set()
        self.database = database
        self.frames, self.link_type, self.capture = read_capture(path)
        found = [row for row in self.query("SELECT * FROM captures")
                 if os.path.basename(row["path"]) == os.path.basename(path)]
        if len(found) != 1:
            raise SystemExit(f"{len(found)} rows in captures for {path}, not 1")
        self.row = found[0]
        ((self.ended_ns,),) = self.query("SELECT ended_ns FROM sessions WHERE id = ?", self.row["session_id"])
        self.flows = {row["id"]: row for row in
                      self.query("SELECT * FROM flows WHERE session_id = ?", self.row["session_id"])}
        if options.port:
            self.flows = {key: flow for key, flow in self.flows.items()
                          if options.port in (flow["local_port"], flow["remote_port"])}
        self.samples = {row["id"]: row for row in self.query(
            "SELECT s.* FROM samples s JOIN flows f ON f.id = s.flow_id WHERE f.session_id = ?",
            self.row["session_id"])}
        self.rows = self.query("SELECT * FROM packets WHERE capture_id = ? ORDER BY number, dir", self.row["id"])
        # The last packet that was sampled: what comes behind it may have come after the recording.
        self.last_sampled = max((row["number"] for row in self.rows if row["match"] in ("exact", "within")), default=0)
        self.states = self.query("SELECT * FROM packet_state WHERE capture_id = ?", self.row["id"])
        self.packets = {packet.number: packet for packet in self.capture}
        for number, jump_ns in clocks.in_doubt(self).items():
            self.samples[number] = dict(self.samples[number], ts_ns=self.samples[number]["ts_ns"] + jump_ns, jump_ns=jump_ns)
        # Changes of state that no segment made have no sequence number.
        self.segments = collections.defaultdict(list)
        for sample in sorted(self.samples.values(), key=lambda sample: sample["serial"]):
            if sample["seq"] is not None:
                self.segments[sample["flow_id"], sample["phase"]].append(sample)

    def query(self, sql, *parameters):
        return self.database.execute(sql, parameters).fetchall()

    def wrong(self, number, text):
        self.violations.append((number, text))

    def rows_of(self, flow_id, direction):
        """A flow's rows of one direction, in the order of the capture."""
        return [row for row in self.rows if row["flow_id"] == flow_id and row["dir"] == direction]

    def own_sample(self, row):
        """The sample that was taken for a row's very packet, or for a part of it."""
        return self.samples.get(row["sample_id"]) if row["match"] in ("exact", "within") else None

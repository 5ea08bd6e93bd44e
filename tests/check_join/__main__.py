"""Checks a join on its own terms: reads the capture and the trace itself, and shares no code with the join.

    python3 check_join trace.db capture.pcap [--sender ADDR] [--port N] [--tap sender|receiver] [--min-matched 0.999]

It takes for granted what holds in the tests' networks, and only there: samples and capture are from one machine and
one clock, the path keeps packets in order, and a byte range is sent again only after the last sending of it has left
the sender's queue. So the true sample of a captured transmission can be found by time: the latest one before it.
TSval, a millisecond clock that each packet carries, must agree.

Exit code 1 when anything is wrong; 3 when the join is right but the recording lacks samples of packets that were sent.
"""

import argparse
import sqlite3
import sys

# No files beside the sources.
sys.dont_write_bytecode = True

import clocks  # noqa: E402
import copies  # noqa: E402
import counts  # noqa: E402
import received  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402
import samples  # noqa: E402
import scoreboard  # noqa: E402
import sent  # noqa: E402
import states  # noqa: E402
from capture import text_address  # noqa: E402
from recording import Check  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description="Checks the join of a capture, independently of the join's code.")
    parser.add_argument("trace")
    parser.add_argument("capture")
    parser.add_argument("--sender", type=text_address, help="count only this address's data packets as the sender's")
    parser.add_argument("--port", type=int, help="look only at flows of this port")
    parser.add_argument("--tap", choices=("sender", "receiver"), default="sender", help="where the capture was made")
    parser.add_argument("--min-matched", type=float, default=0.999)
    options = parser.parse_args()
    database = sqlite3.connect(f"file:{options.trace}?mode=ro", uri=True)
    database.row_factory = sqlite3.Row
    check = Check(database, options.capture, options)
    rows.check_totals(check)
    rows.check_rows(check)
    samples.check_samples(check)
    for flow_id in check.flows:
        out, into = check.rows_of(flow_id, "out"), check.rows_of(flow_id, "in")
        sent.check_transmissions(check, flow_id, out)
        scoreboard.check_sacked(check, flow_id, out, into)
        received.check_received(check, flow_id, into)
        copies.check_copies(check, out)
        copies.check_copies(check, into)
        clocks.check_variation(check, out)
        clocks.check_variation(check, into)
        counts.check_counts(check, flow_id)
    clocks.check_clock(check)
    states.check_states(check)
    return report.report(check)


if __name__ == "__main__":
    sys.exit(main())

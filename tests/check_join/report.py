"""What is printed."""

import collections

from capture import text_address

SHOWN_VIOLATIONS = 20
# A share of fewer packets says nothing.
FEW = 20
# Of so many copies one may be told from its twin by nothing.
FEW_IN = 100


def report(check):
    print(f"frames {check.frames}, TCP {len(check.capture)}, rows {len(check.rows)}, flows {len(check.flows)}, "
          f"samples {len(check.samples)}, retransmissions {check.retransmissions}, "
          f"undecided by this check {check.undecided}")
    print("compared: " + ", ".join(f"{what} {count}" for what, count in sorted(check.compared.items())))
    matched = total = 0
    groups = collections.Counter()
    for row in check.rows:
        groups[row["dir"], "data" if row["len"] else "no data", row["match"]] += 1
        local = text_address(check.flows[row["flow_id"]]["local_addr"])
        if row["dir"] == "out" and row["len"] and check.options.sender in (None, local):
            if row["number"] in check.after_the_end:
                continue
            if row["number"] in check.unsampled and row["match"] not in ("exact", "within"):
                continue
            total += 1
            matched += row["match"] in ("exact", "within")
    for (direction, data, match), count in sorted(groups.items()):
        print(f"  {direction:3} {data:7} {match:7} {count}")
    share = matched / total if total else 0.0
    if check.after_the_end:
        print(f"{len(check.after_the_end)} packets were sent after the recording")
    print(f"sender's data packets that were sampled: {total}, matched: {matched} ({share:.4%})")
    if share < check.options.min_matched:
        reasons = collections.Counter(
            (row["match"], row["reason"]) for row in check.rows
            if row["dir"] == "out" and row["len"] and row["match"] not in ("exact", "within"))
        check.wrong(0, f"only {share:.4%} of the sender's data packets are matched; the rest: {dict(reasons)}")
    said, not_said = check.compared["SACKed bytes above 0"], check.compared["SACKed bytes not said"]
    # A join that says nothing is never wrong. What it cannot say are ACKs that waited, were merged or not captured.
    if not_said > max(said, FEW):
        check.wrong(0, f"sacked_bytes is not said of {not_said} packets with sacked_out, said of {said}")
    copies_not_said = check.compared["copies not said"]
    if copies_not_said * FEW_IN > check.compared["copies"]:
        check.wrong(0, f"nothing is said of {copies_not_said} copies of {check.compared['copies']}")
    for number, text in sorted(check.violations)[:SHOWN_VIOLATIONS]:
        print(f"WRONG packet {number}: {text}")
    print(f"{len(check.violations)} violations")
    if check.unsampled:
        print(f"{len(check.unsampled)} data packets were sent without a sample, the first is {min(check.unsampled)}")
    return 1 if check.violations else 3 if check.unsampled else 0

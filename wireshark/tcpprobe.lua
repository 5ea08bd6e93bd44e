-- Fields of the TCP sender's state in Wireshark and tshark: tcpprobe.snd_cwnd, tcpprobe.match, …
--
-- Reads the comments that `tcpprobe export --to pcapng` writes, for all versions hand those to Lua.
--   tshark -X lua_script:wireshark/tcpprobe.lua -r annotated.pcapng -Y 'tcpprobe.snd_cwnd < 10'

-- Made from trace/src/columns.rs by replay/tests/wireshark.rs: change it there.
-- FIELDS BEGIN
local FIELDS = {
    { "match", "text", "How its state is known: exact, within, carried, none." },
    { "reason", "text", "Why not better." },
    { "dir", "text", "out: that socket sent it; in: it received it." },
    { "snd_cwnd", "integer", "Congestion window (tcp_sock.snd_cwnd). [packets]" },
    { "snd_ssthresh", "integer", "Slow start threshold; 2147483647 is the kernel's infinity (tcp_sock.snd_ssthresh). [packets]" },
    { "ca_state", "integer", "Congestion avoidance state: 0 Open, 1 Disorder, 2 CWR, 3 Recovery, 4 Loss (inet_connection_sock.icsk_ca_state)." },
    { "bytes_in_flight", "integer", "Sequence space sent and not yet acknowledged: snd_nxt - snd_una. [bytes]" },
    { "srtt_us", "integer", "Smoothed round-trip time; 0 before the first measurement (tcp_sock.srtt_us >> 3). [µs]" },
    { "retransmission", "integer", "1: it is a retransmission by the kernel's word; 0: it is none; NULL: received, or not known." },
    { "flow_id", "integer", "The recorded socket that sees it, a row of flows." },
    { "sample_id", "integer", "The sample that its state is from, a row of samples." },
    { "copy", "integer", "0 for the first sighting of this packet in the capture, 1 for the second, …." },
    { "interface", "integer", "Interface that it was captured on, where the capture says so: LINUX_SLL2's index, or pcapng's number." },
    { "tunnel", "text", "What it was wrapped in." },
    { "delay_ns", "integer", "When it was captured less when its sample was taken, by both clocks as they are. [ns]" },
    { "delay_variation_ns", "integer", "That delay less the difference of the clocks and the flow's smallest one in this direction (RFC 5481 §4.2). [ns]" },
    { "sacked_bytes", "integer", "Of snd_una to snd_nxt, what the packets before this one have selectively acknowledged. [bytes]" },
    { "sample_ts_ns", "integer", "When its sample was taken, Unix epoch, by the recording's clock. [ns]" },
    { "sample_kind", "text", "What its sample was taken for." },
    { "sample_phase", "text", "When its sample was taken." },
    { "snd_nxt", "integer", "Next sequence number to be sent; in a transmit sample of new data it is not yet advanced (tcp_sock.snd_nxt, RFC 9293 SND.NXT). [sequence number]" },
    { "snd_una", "integer", "Oldest unacknowledged sequence number (tcp_sock.snd_una, RFC 9293 SND.UNA). [sequence number]" },
    { "write_seq", "integer", "End of the data that the application has written (tcp_sock.write_seq). [sequence number]" },
    { "snd_wnd", "integer", "Window that the peer offers, scaled (tcp_sock.snd_wnd). [bytes]" },
    { "rcv_nxt", "integer", "Next sequence number expected from the peer (tcp_sock.rcv_nxt). [sequence number]" },
    { "rcv_wnd", "integer", "Window last offered to the peer, scaled (tcp_sock.rcv_wnd). [bytes]" },
    { "mdev_us", "integer", "Mean deviation of the round-trip time (tcp_sock.mdev_us >> 2). [µs]" },
    { "rttvar_us", "integer", "Smoothed maximum of the deviation, from which the RTO is made (tcp_sock.rttvar_us >> 2). [µs]" },
    { "min_rtt_us", "integer", "Minimum round-trip time over the kernel's window; NULL before the first measurement (tcp_sock.rtt_min). [µs]" },
    { "rto_us", "integer", "Retransmission timeout, backed off where it is (inet_connection_sock.icsk_rto, whole jiffies). [µs]" },
    { "mss", "integer", "Sending maximum segment size without SACK options (tcp_sock.mss_cache). [bytes]" },
    { "packets_out", "integer", "Segments sent and not yet acknowledged; in a transmit sample of new data without this one (tcp_sock.packets_out). [packets]" },
    { "retrans_out", "integer", "Retransmitted segments not yet acknowledged (tcp_sock.retrans_out). [packets]" },
    { "lost_out", "integer", "Segments that the kernel holds for lost (tcp_sock.lost_out). [packets]" },
    { "sacked_out", "integer", "Segments selectively acknowledged, or duplicate ACKs without SACK (tcp_sock.sacked_out). [packets]" },
    { "retransmits", "integer", "Timeouts in a row that went unanswered (inet_connection_sock.icsk_retransmits)." },
    { "reordering", "integer", "Reordering that the kernel assumes of the path (tcp_sock.reordering). [packets]" },
    { "delivered", "integer", "Segments delivered, retransmissions counted once (tcp_sock.delivered). [packets]" },
    { "lost", "integer", "Segments that were ever marked lost (tcp_sock.lost). [packets]" },
    { "bytes_sent", "integer", "Payload bytes handed to the network layer, retransmissions included; at a transmit sample it already counts this segment (tcp_sock.bytes_sent). [bytes]" },
    { "bytes_acked", "integer", "Payload bytes that the peer has acknowledged (tcp_sock.bytes_acked, RFC 4898 tcpEStatsAppHCThruOctetsAcked). [bytes]" },
    { "bytes_retrans", "integer", "Payload bytes retransmitted (tcp_sock.bytes_retrans). [bytes]" },
    { "segs_out", "integer", "Segments sent, ACKs included; in a transmit sample at net_dev_queue it already counts this one, at the entry of __tcp_transmit_skb not yet (tcp_sock.segs_out). [segments]" },
    { "delivery_rate", "integer", "The last rate sample: rate_delivered * mss / rate_interval_us, as tcp_info computes it; NULL before the first. [bytes per second]" },
    { "rate_app_limited", "integer", "1 where the last rate sample was limited by the application (tcp_sock.rate_app_limited)." },
    { "pacing_rate", "integer", "Rate at which the socket is paced; NULL where it is unlimited (sock.sk_pacing_rate). [bytes per second]" },
    { "cwnd_limited", "integer", "1 where the congestion window held data back in the last round (tcp_sock.is_cwnd_limited)." },
    { "notsent_bytes", "integer", "Data written by the application and not yet sent: write_seq - snd_nxt. [bytes]" },
    { "sk_mark", "integer", "The socket's mark, as set by SO_MARK (sock.sk_mark)." },
    { "sk_state", "integer", "TCP state: 1 ESTABLISHED, 2 SYN_SENT, 3 SYN_RECV, 4 FIN_WAIT1, 5 FIN_WAIT2, 6 TIME_WAIT, 7 CLOSE, 8 CLOSE_WAIT, 9 LAST_ACK, 10 LISTEN, 11 CLOSING (sock_common.skc_state); in a state sample the state that is entered." },
    { "bytes_in_flight_with_packet", "integer", "bytes_in_flight with this packet, which the state when it was sent does not count yet. [bytes]" },
}
-- FIELDS END

local tcpprobe = Proto("tcpprobe", "State of the TCP sender")
local comment = Field.new("frame.comment")

-- An own state's fields, and those of the peer's, by column.
local own, peer, all = {}, {}, {}
for _, field in ipairs(FIELDS) do
    local name, kind, doc = field[1], field[2], field[3]
    for prefix, fields in pairs({ ["tcpprobe."] = own, ["tcpprobe.peer."] = peer }) do
        if kind == "text" then
            fields[name] = { ProtoField.string(prefix .. name, name, base.ASCII, doc), false }
        else
            fields[name] = { ProtoField.int64(prefix .. name, name, base.DEC, nil, nil, doc), true }
        end
        all[#all + 1] = fields[name][1]
    end
end
tcpprobe.fields = all

-- A number of 64 bits, which a number of Lua may not hold: in two parts.
local function integer(text)
    local sign, digits = text:match("^(%-?)(%d+)$")
    if not digits or #digits > 19 then
        return nil
    end
    local high, low = Int64(tonumber(digits:sub(1, -10)) or 0), Int64(tonumber(digits:sub(-9)))
    local billion = Int64(1000000000)
    if sign == "-" then
        return Int64(0) - high * billion - low
    end
    return high * billion + low
end

-- Takes off the quotes. Of the characters written as %XX only printable ones come back.
local function unquoted(text)
    text = text:match('^"(.*)"$') or text
    return (text:gsub("%%(%x%x)", function(hex)
        local code = tonumber(hex, 16)
        return code >= 32 and code < 127 and string.char(code) or nil
    end))
end

local function add(tree, words, fields, title)
    local branch = tree:add(tcpprobe, title)
    -- a word is key=value; a value with blanks stands in quotes
    for name, value in words:gmatch('([%w_]+)=("[^"]*")') do
        if fields[name] and not fields[name][2] then
            branch:add(fields[name][1], unquoted(value))
        end
    end
    for name, value in words:gsub('"[^"]*"', '"'):gmatch('([%w_]+)=([^%s"]+)') do
        local field = fields[name]
        if field and field[2] then
            local number = integer(value)
            if number then
                branch:add(field[1], number)
            end
        elseif field then
            branch:add(field[1], unquoted(value))
        end
    end
end

function tcpprobe.dissector(_, _, tree)
    local has_own, has_peer = false, false
    -- the first of each kind: what export writes stands before older comments
    for _, info in ipairs({ comment() }) do
        local text = tostring(info.value)
        local words = text:match("^tcpprobe:( .*)$")
        local of_peer = text:match("^tcpprobe peer:( .*)$")
        if words and not has_own then
            has_own = true
            add(tree, words, own, "State of the TCP sender")
        elseif of_peer and has_own and not has_peer then
            has_peer = true
            add(tree, of_peer, peer, "State of the peer's socket")
        end
    end
end

register_postdissector(tcpprobe, true)

PRAGMA application_id = 1414550082;
PRAGMA user_version = 5;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE captures (
  id INTEGER PRIMARY KEY,
  session_id INTEGER REFERENCES sessions(id),  -- of most of its packets; NULL: of no recorded flow
  path TEXT NOT NULL UNIQUE,
  link_type INTEGER NOT NULL,
  snaplen INTEGER NOT NULL,
  packets INTEGER NOT NULL,         -- frames in the file
  tcp_packets INTEGER NOT NULL,
  joined INTEGER NOT NULL,          -- TCP packets with a state: exact, within or carried
  clock_offset_ns INTEGER,          -- capture's clock minus recording's, at the capture's first packet
  truncated INTEGER NOT NULL,       -- 1: the file ends within a record
  clock_offset_error_ns INTEGER,    -- the true one is no farther off; NULL: delays in one direction only, no bound
  clock_drift_ppb INTEGER,          -- ns that the capture's clock gains in a second
  clock_drift_error_ppb INTEGER,
  clock_steps INTEGER               -- how often one of the two was set meanwhile
);
CREATE TABLE clocks (
  session_id INTEGER NOT NULL REFERENCES sessions(id),
  mono_before_ns INTEGER NOT NULL,
  real_ns INTEGER NOT NULL,
  mono_after_ns INTEGER NOT NULL
);
INSERT INTO clocks VALUES(1,605476837361,1795570764464425719,605476837424);
INSERT INTO clocks VALUES(1,605671533447,1795570764659121806,605671533510);
CREATE TABLE flows (
  id INTEGER PRIMARY KEY,
  session_id INTEGER NOT NULL REFERENCES sessions(id),
  local_addr TEXT NOT NULL,
  local_port INTEGER NOT NULL,
  remote_addr TEXT NOT NULL,
  remote_port INTEGER NOT NULL,
  family TEXT NOT NULL,             -- inet, inet6: of the socket; an inet6 socket may speak IPv4
  netns INTEGER NOT NULL,           -- inode number, as ls -L /run/netns and lsns show it
  cookie INTEGER,
  congestion TEXT,
  snd_wscale INTEGER,
  rcv_wscale INTEGER,
  first_ns INTEGER NOT NULL,        -- Unix epoch, of the first and the last sample
  last_ns INTEGER NOT NULL,
  closed INTEGER NOT NULL           -- 1: its end was seen
);
INSERT INTO flows VALUES(1,1,'127.0.0.1',55688,'127.0.0.1',7099,'inet',4026531833,1,'bbr',10,10,1795570764555117878,1795570764556051885,1);
INSERT INTO flows VALUES(2,1,'127.0.0.1',7099,'127.0.0.1',55688,'inet',4026531833,2,'bbr',10,10,1795570764555302730,1795570764556095310,1);
CREATE TABLE internal_rows (
  sample_id INTEGER PRIMARY KEY,
  flow_id INTEGER NOT NULL REFERENCES flows(id),
  cubic_last_max_cwnd INTEGER,
  cubic_origin_point INTEGER,
  cubic_k_us INTEGER,
  cubic_epoch_start_ns INTEGER,
  cubic_tcp_cwnd INTEGER,
  cubic_delay_min_us INTEGER,
  cubic_hystart_found INTEGER,
  cubic_hystart_curr_rtt_us INTEGER,
  cubic_hystart_samples INTEGER,
  bbr_mode INTEGER,
  bbr_bw_bytes_per_s INTEGER,
  bbr_lt_bw_used INTEGER,
  bbr_min_rtt_us INTEGER,
  bbr_pacing_gain REAL,
  bbr_cwnd_gain REAL,
  bbr_cycle_idx INTEGER,
  bbr_full_bw_reached INTEGER,
  bbr_prior_cwnd INTEGER,
  dctcp_alpha REAL,
  dctcp_ce_state INTEGER
);
INSERT INTO internal_rows VALUES(3,1,10,NULL,2500,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO internal_rows VALUES(5,1,12,NULL,3000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO internal_rows VALUES(16,2,7,NULL,100,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE losses (
  session_id INTEGER NOT NULL REFERENCES sessions(id),
  flow_id INTEGER REFERENCES flows(id),  -- NULL: not known of which
  after_serial INTEGER,             -- the last sample before the hole
  count INTEGER NOT NULL,
  cause TEXT NOT NULL
);
CREATE TABLE packet_rows (
  id INTEGER PRIMARY KEY,
  capture_id INTEGER NOT NULL,
  number INTEGER NOT NULL,
  ts_ns INTEGER,
  flow_id INTEGER NOT NULL,
  is_out INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  ack INTEGER NOT NULL,
  len INTEGER NOT NULL,
  flags INTEGER NOT NULL,
  window INTEGER NOT NULL,
  sample_id INTEGER,
  match_code INTEGER NOT NULL,
  reason_code INTEGER,
  delay_ns INTEGER,
  carried_nxt INTEGER,              -- snd_nxt and snd_una advanced by the packets since the sample
  carried_una INTEGER,
  copy INTEGER,                     -- 0: the first sighting of this packet, 1 the second, …
  interface INTEGER,                -- where the capture names it
  tunnel TEXT,                      -- what the packet was wrapped in
  sacked_bytes INTEGER,             -- of snd_una to snd_nxt, selectively acknowledged by the packets before this one
  delay_variation_ns INTEGER        -- delay, less the clocks' difference and the flow's smallest one
);
INSERT INTO packet_rows VALUES(1,1,1,1795570764555171242,1,1,3374953001,0,0,2,65495,1,0,NULL,21222,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO packet_rows VALUES(2,1,1,1795570764555171242,2,0,3374953001,0,0,2,65495,NULL,3,4,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO packet_rows VALUES(3,1,2,1795570764555272848,1,0,3439719786,3374953002,0,18,65483,2,0,NULL,-17308,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO packet_rows VALUES(4,1,2,1795570764555272848,2,1,3439719786,3374953002,0,18,65483,NULL,3,4,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO packet_rows VALUES(5,1,3,1795570764555295805,1,1,3374953002,3439719787,0,16,64,3,0,NULL,1185,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO packet_rows VALUES(6,1,3,1795570764555295805,2,0,3374953002,3439719787,0,16,64,NULL,3,4,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO packet_rows VALUES(7,1,4,1795570764555444231,1,1,3374953002,3439719787,5000,24,64,4,0,NULL,1359,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO packet_rows VALUES(8,1,4,1795570764555444231,2,0,3374953002,3439719787,5000,24,64,12,0,NULL,-2610,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO packet_rows VALUES(9,1,5,1795570764555453517,1,0,3439719787,3374958002,0,16,105,5,0,NULL,-2008,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO packet_rows VALUES(10,1,5,1795570764555453517,2,1,3439719787,3374958002,0,16,105,13,0,NULL,975,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO packet_rows VALUES(11,1,6,1795570764555466475,1,1,3374958002,3439719787,0,17,64,7,0,NULL,714,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO packet_rows VALUES(12,1,6,1795570764555466475,2,0,3374958002,3439719787,0,17,64,14,0,NULL,-368,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO packet_rows VALUES(13,1,7,1795570764556002490,1,0,3439719787,3374958003,0,17,105,7,2,0,NULL,3374958003,3374958002,NULL,NULL,NULL,NULL,NULL);
INSERT INTO packet_rows VALUES(14,1,7,1795570764556002490,2,1,3439719787,3374958003,0,17,105,17,0,NULL,13342,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO packet_rows VALUES(15,1,8,1795570764556082928,1,1,3374958003,3439719788,0,16,64,9,0,NULL,67856,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO packet_rows VALUES(16,1,8,1795570764556082928,2,0,3374958003,3439719788,0,16,64,17,2,0,NULL,3439719788,3439719787,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE packetless_rows (
  capture_id INTEGER NOT NULL,
  sample_id INTEGER NOT NULL,
  outcome_code INTEGER NOT NULL,
  PRIMARY KEY (capture_id, sample_id)
) WITHOUT ROWID;
INSERT INTO packetless_rows VALUES(1,2,0);
INSERT INTO packetless_rows VALUES(1,11,1);
INSERT INTO packetless_rows VALUES(1,16,2);
CREATE TABLE probe_costs (
  session_id INTEGER NOT NULL REFERENCES sessions(id),
  program TEXT NOT NULL,            -- how and where it was attached
  runs INTEGER NOT NULL,
  total_ns INTEGER NOT NULL
);
CREATE TABLE sample_counts (
  capture_id INTEGER NOT NULL REFERENCES captures(id),
  flow_id INTEGER NOT NULL REFERENCES flows(id),
  outcome TEXT NOT NULL,            -- joined, or why a sample of a segment has no packet
  samples INTEGER NOT NULL
);
CREATE TABLE sessions (
  id INTEGER PRIMARY KEY,
  started_ns INTEGER NOT NULL,      -- Unix epoch
  ended_ns INTEGER,
  complete INTEGER NOT NULL,        -- 1: ended in order; 0: still running, or broken off
  host TEXT NOT NULL,
  kernel TEXT NOT NULL,
  tool_version TEXT NOT NULL,
  command TEXT NOT NULL,
  backend TEXT NOT NULL,
  filter TEXT NOT NULL,
  sample_mode TEXT NOT NULL,        -- all; cwnd: only where cwnd, ssthresh or ca_state changed; received: no sent segments
  samples INTEGER NOT NULL,
  lost INTEGER NOT NULL,            -- samples lost, all causes of samples
  capture_path TEXT,
  capture_packets INTEGER,
  capture_dropped INTEGER,          -- by the kernel or the interface
  mono_base_ns INTEGER NOT NULL,    -- what sample_rows.mono_off counts from
  real_base_ns INTEGER NOT NULL     -- what clock_off is added to
);
INSERT INTO sessions VALUES(1,1795570764464425719,1795570764659121806,1,'host','6.18.0','0.1.0','tcpprobe record -w trace.db','tracepoint','port 7099','all',18,0,'/trace.pcap',8,0,605476837392,1795570764464425719);
CREATE TABLE translations (
  capture_id INTEGER NOT NULL REFERENCES captures(id),
  flow_id INTEGER NOT NULL REFERENCES flows(id),
  local_addr TEXT NOT NULL,         -- the flow's addresses as this capture has them
  local_port INTEGER NOT NULL,
  remote_addr TEXT NOT NULL,
  remote_port INTEGER NOT NULL,
  seq_shift INTEGER NOT NULL,       -- the capture's numbers minus the socket's, modulo 2^32: what it sends
  peer_seq_shift INTEGER NOT NULL,  -- what it receives
  packets INTEGER NOT NULL
);
CREATE TABLE unjoined (
  capture_id INTEGER NOT NULL REFERENCES captures(id),
  reason TEXT NOT NULL,             -- why frames of the file have no row in packets
  count INTEGER NOT NULL
);
CREATE TABLE sample_runs (
  first_id INTEGER PRIMARY KEY,     -- samples of one flow, with ids and serials one by one
  last_id INTEGER NOT NULL,
  flow_id INTEGER NOT NULL,
  first_serial INTEGER NOT NULL,
  -- what the columns of its samples are distances from,
  mono_off INTEGER NOT NULL,
  clock_off INTEGER NOT NULL,
  own INTEGER NOT NULL,
  peer INTEGER NOT NULL,
  tsval_out INTEGER NOT NULL,
  tsval_in INTEGER NOT NULL,
  segs_out INTEGER NOT NULL,
  ip_id_out INTEGER NOT NULL,
  ip_id_in INTEGER NOT NULL,
  bytes_sent INTEGER NOT NULL,
  bytes_acked INTEGER NOT NULL,
  delivered INTEGER NOT NULL,
  ack_id INTEGER NOT NULL,
  seldom_id INTEGER NOT NULL
);
INSERT INTO sample_runs VALUES(1,10,1,1,90724302,-1,3374953001,3439719786,2719296300,496688689,1,65530,65532,0,0,0,1,1);
INSERT INTO sample_runs VALUES(11,18,2,1,90891212,-1,3439719787,3374953002,496688689,2719296300,0,0,0,0,0,1,7,6);
CREATE TABLE seldom_rows (id INTEGER PRIMARY KEY, bytes_retrans INTEGER, snd_ssthresh INTEGER, rttvar_us INTEGER, min_rtt_us INTEGER, mss INTEGER, lost_out INTEGER, reordering INTEGER, lost INTEGER, sk_mark INTEGER, ca_state INTEGER, retransmits INTEGER, cwnd_limited INTEGER, rate_app_limited INTEGER, sk_state INTEGER);
INSERT INTO seldom_rows VALUES(1,0,2147483647,0,NULL,524,0,3,0,0,0,0,0,1,2);
INSERT INTO seldom_rows VALUES(2,0,2147483647,50000,189,32741,0,3,0,0,0,0,0,1,1);
INSERT INTO seldom_rows VALUES(3,0,2147483647,50000,14,53760,0,3,0,0,0,0,0,1,4);
INSERT INTO seldom_rows VALUES(4,0,2147483647,50000,14,53760,0,3,0,0,0,0,0,0,5);
INSERT INTO seldom_rows VALUES(5,0,2147483647,50000,14,53760,0,3,0,0,0,0,0,0,7);
INSERT INTO seldom_rows VALUES(6,0,2147483647,50000,30,32768,0,3,0,0,0,0,0,1,1);
INSERT INTO seldom_rows VALUES(7,0,2147483647,50000,30,32768,0,3,0,0,0,0,0,1,8);
INSERT INTO seldom_rows VALUES(8,0,2147483647,50000,30,32768,0,3,0,0,0,0,0,1,9);
INSERT INTO seldom_rows VALUES(9,0,2147483647,50000,30,32768,0,3,0,0,0,0,0,1,7);
CREATE TABLE ack_rows (id INTEGER PRIMARY KEY, seldom_off INTEGER, acked_off INTEGER, delivered_off INTEGER, rto_off INTEGER, pacing_rate INTEGER, snd_cwnd INTEGER, snd_wnd INTEGER, rcv_wnd INTEGER, srtt_us INTEGER, mdev_us INTEGER, retrans_out INTEGER, sacked_out INTEGER, rate_delivered INTEGER, rate_interval_us INTEGER);
INSERT INTO ack_rows VALUES(1,0,0,0,1000000,NULL,10,0,65495,0,250000,0,0,0,0);
INSERT INTO ack_rows VALUES(2,1,0,1,153811,4950734248,4,65483,65495,189,94,0,0,0,0);
INSERT INTO ack_rows VALUES(3,1,0,1,149811,4950734248,10,65483,65536,189,94,0,0,0,0);
INSERT INTO ack_rows VALUES(4,2,0,2,153833,10974144767,11,107520,65536,167,97,0,0,1,14);
INSERT INTO ack_rows VALUES(5,3,0,3,153787,10974144767,12,107520,65536,213,166,0,0,1,541);
INSERT INTO ack_rows VALUES(6,4,0,3,153787,10974144767,12,107520,65536,213,166,0,0,1,541);
INSERT INTO ack_rows VALUES(7,0,0,0,149970,31215358139,10,65536,65483,30,15,0,0,0,0);
INSERT INTO ack_rows VALUES(8,0,0,0,149970,31215358139,10,65536,107520,30,15,0,0,0,0);
INSERT INTO ack_rows VALUES(9,1,0,0,149970,31215358139,10,65536,107520,30,15,0,0,0,0);
INSERT INTO ack_rows VALUES(10,2,0,0,149970,31215358139,10,65536,107520,30,15,0,0,0,0);
INSERT INTO ack_rows VALUES(11,3,0,1,153961,31215358139,11,65536,107520,39,31,0,0,1,109);
CREATE TABLE sample_rows (id INTEGER PRIMARY KEY, mono_off INTEGER, clock_off INTEGER, what INTEGER, own INTEGER, peer INTEGER, len INTEGER, tsval_off INTEGER, ack_off INTEGER, nxt_off INTEGER, una_off INTEGER, notsent INTEGER, rcv_off INTEGER, sent_off INTEGER, segs_off INTEGER, ip_id_off INTEGER, packets_out INTEGER, run_off INTEGER);
INSERT INTO sample_rows VALUES(1,0,0,221,0,855247510,0,0,0,0,0,1,0,0,0,0,1,0);
INSERT INTO sample_rows VALUES(2,140136,0,34,1,0,0,NULL,1,0,0,0,1,-1,0,0,0,1);
INSERT INTO sample_rows VALUES(3,144600,0,5,1,1,0,0,2,0,0,0,0,-1,1,1,0,2);
INSERT INTO sample_rows VALUES(4,292852,0,101,1,1,5000,0,2,0,0,5000,0,-1,2,2,0,3);
INSERT INTO sample_rows VALUES(5,305505,0,0,5001,1,0,0,2,0,5000,0,0,-1,2,NULL,1,4);
INSERT INTO sample_rows VALUES(6,314798,0,10,NULL,NULL,NULL,NULL,3,5001,-5001,0,1,-1,2,NULL,0,5);
INSERT INTO sample_rows VALUES(7,315741,0,17,5001,1,0,0,3,0,0,1,0,-1,3,NULL,0,6);
INSERT INTO sample_rows VALUES(8,860957,0,10,NULL,NULL,NULL,NULL,4,5002,-5002,0,1,-2,3,NULL,0,7);
INSERT INTO sample_rows VALUES(9,865052,0,5,5002,2,0,1,4,0,0,0,0,-2,4,NULL,0,8);
INSERT INTO sample_rows VALUES(10,901865,0,10,NULL,NULL,NULL,NULL,5,5002,-5002,0,2,-2,4,NULL,0,9);
INSERT INTO sample_rows VALUES(11,0,0,10,NULL,NULL,NULL,NULL,0,0,0,0,0,0,0,NULL,0,0);
INSERT INTO sample_rows VALUES(12,129911,0,96,0,0,5000,0,0,0,0,0,0,0,0,NULL,0,1);
INSERT INTO sample_rows VALUES(13,135612,0,5,0,5000,0,0,1,0,0,0,0,0,1,NULL,0,2);
INSERT INTO sample_rows VALUES(14,149913,0,12,0,5000,0,0,1,0,0,0,0,0,1,NULL,0,3);
INSERT INTO sample_rows VALUES(15,150780,0,10,NULL,NULL,NULL,NULL,2,0,0,0,5001,0,1,NULL,0,4);
INSERT INTO sample_rows VALUES(16,655505,0,10,NULL,NULL,NULL,NULL,3,0,0,0,5001,0,1,NULL,0,5);
INSERT INTO sample_rows VALUES(17,672218,0,17,0,5001,0,1,3,0,0,1,0,0,2,NULL,0,6);
INSERT INTO sample_rows VALUES(18,778380,0,10,NULL,NULL,NULL,NULL,4,1,-1,0,5001,-1,2,NULL,0,7);
CREATE TABLE rare_rows (
  sample_id INTEGER PRIMARY KEY,
  error INTEGER,                    -- errno of a transmission that failed locally
  rcv_laps INTEGER                  -- how often rcv_nxt went round unseen since the flow's sample before
);
INSERT INTO rare_rows VALUES(17,11,NULL);
INSERT INTO rare_rows VALUES(18,NULL,1);
CREATE INDEX flows_by_address ON flows (local_addr, local_port, remote_addr, remote_port);
CREATE INDEX packet_rows_by_capture ON packet_rows (capture_id, number);
CREATE INDEX packet_rows_by_flow ON packet_rows (flow_id, number);
CREATE INDEX internal_rows_by_flow ON internal_rows (flow_id);
CREATE INDEX sample_runs_by_flow ON sample_runs (flow_id, first_id);
CREATE VIEW samples AS SELECT r.id AS id, u.flow_id AS flow_id, u.first_serial + r.id - u.first_id AS serial,
  z.real_base_ns + u.mono_off + r.mono_off + u.clock_off + r.clock_off AS ts_ns, z.mono_base_ns + u.mono_off + r.mono_off AS mono_ns,
  CASE r.what % 12 / 3 WHEN 0 THEN 'ack' WHEN 1 THEN 'send' WHEN 2 THEN 'retransmit' WHEN 3 THEN 'state' END AS kind, CASE r.what % 3 WHEN 0 THEN 'before' WHEN 1 THEN 'after' WHEN 2 THEN 'transmit' END AS phase,
  (CASE WHEN r.what % 12 / 3 IN (1, 2) THEN u.own + r.own ELSE u.peer + r.peer END) & 4294967295 AS seq,
  r.len AS len,
  (CASE WHEN r.what % 12 / 3 IN (1, 2) THEN u.peer + r.peer ELSE u.own + r.own END) & 4294967295 AS ack,
  CASE WHEN r.own IS NOT NULL
    THEN r.what / 12 + 16 - 2 * (r.what / 12 & 16) END AS flags,
  (CASE WHEN r.what % 12 / 3 IN (1, 2) THEN u.tsval_out ELSE u.tsval_in END + r.mono_off / 1000000 + r.tsval_off) & 4294967295 AS tsval,
  (CASE WHEN r.what % 12 / 3 IN (1, 2) THEN u.ip_id_out + coalesce(u.segs_out + r.segs_off, 0) ELSE u.ip_id_in END + r.ip_id_off) & 65535 AS ip_id,
  (SELECT o.error FROM rare_rows o WHERE o.sample_id = r.id) AS error,
  (u.own + coalesce(r.own, 0) + r.nxt_off) & 4294967295 AS snd_nxt,
  (u.own + coalesce(r.own, 0) + r.nxt_off - (r.nxt_off + r.una_off)) & 4294967295 AS snd_una,
  (u.own + coalesce(r.own, 0) + r.nxt_off + r.notsent) & 4294967295 AS write_seq,
  a.snd_cwnd AS snd_cwnd,
  d.snd_ssthresh AS snd_ssthresh,
  a.snd_wnd AS snd_wnd,
  (u.peer + coalesce(r.peer, 0) + r.rcv_off) & 4294967295 AS rcv_nxt,
  a.rcv_wnd AS rcv_wnd,
  a.srtt_us AS srtt_us,
  a.mdev_us AS mdev_us,
  d.rttvar_us AS rttvar_us,
  d.min_rtt_us AS min_rtt_us,
  coalesce(a.srtt_us, 0) + coalesce(d.rttvar_us, 0) + a.rto_off AS rto_us,
  d.mss AS mss,
  r.packets_out AS packets_out,
  a.retrans_out AS retrans_out,
  d.lost_out AS lost_out,
  a.sacked_out AS sacked_out,
  (coalesce(r.nxt_off, 0) + r.una_off) & 4294967295 AS bytes_in_flight,
  d.ca_state AS ca_state,
  d.retransmits AS retransmits,
  d.reordering AS reordering,
  u.delivered + a.delivered_off AS delivered,
  d.lost AS lost,
  u.bytes_sent + coalesce(r.own, 0) + coalesce(r.nxt_off, 0) + CASE WHEN r.what % 12 / 3 IN (1, 2) THEN coalesce(r.len, 0) ELSE 0 END + r.sent_off AS bytes_sent,
  u.bytes_acked + coalesce(r.own, 0) - coalesce(r.una_off, 0) + a.acked_off AS bytes_acked,
  d.bytes_retrans AS bytes_retrans,
  u.segs_out + r.segs_off AS segs_out,
  CASE WHEN a.rate_interval_us > 0 THEN a.rate_delivered * d.mss * 1000000 / a.rate_interval_us END AS delivery_rate,
  d.rate_app_limited AS rate_app_limited,
  a.pacing_rate AS pacing_rate,
  d.cwnd_limited AS cwnd_limited,
  r.notsent AS notsent_bytes,
  d.sk_mark AS sk_mark,
  d.sk_state AS sk_state
FROM sample_runs u JOIN sample_rows r ON r.id >= u.first_id AND r.id <= u.last_id AND u.first_id = r.id - r.run_off
  JOIN flows f ON f.id = u.flow_id JOIN sessions z ON z.id = f.session_id
  JOIN ack_rows a ON a.id = u.ack_id + r.ack_off JOIN seldom_rows d ON d.id = u.seldom_id + a.seldom_off;
CREATE VIEW packets AS SELECT p.id AS id, p.capture_id AS capture_id, p.number AS number, p.ts_ns AS ts_ns,
  p.flow_id AS flow_id, CASE WHEN p.is_out THEN 'out' ELSE 'in' END AS dir, p.seq AS seq, p.ack AS ack, p.len AS len,
  p.flags AS flags, p.window AS window, p.sample_id AS sample_id, coalesce(p.copy, 0) AS copy, p.interface AS interface,
  p.tunnel AS tunnel,
  CASE p.match_code WHEN 0 THEN 'exact' WHEN 1 THEN 'within' WHEN 2 THEN 'carried' WHEN 3 THEN 'none' END AS match, CASE p.reason_code WHEN 0 THEN 'not sampled' WHEN 1 THEN 'ambiguous' WHEN 2 THEN 'hole in the samples' WHEN 3 THEN 'before the first sample' WHEN 4 THEN 'request socket' WHEN 5 THEN 'after the close' WHEN 6 THEN 'reset' WHEN 7 THEN 'sparse trace' WHEN 8 THEN 'time wait' WHEN 9 THEN 'not in the source' END AS reason, p.delay_ns AS delay_ns, p.delay_variation_ns AS delay_variation_ns,
  p.sacked_bytes AS sacked_bytes
FROM packet_rows p;
CREATE VIEW packet_state AS SELECT p.id AS id, p.capture_id AS capture_id, p.number AS number, p.ts_ns AS ts_ns,
  p.flow_id AS flow_id, CASE WHEN p.is_out THEN 'out' ELSE 'in' END AS dir, p.seq AS seq, p.ack AS ack, p.len AS len,
  p.flags AS flags, p.window AS window, p.sample_id AS sample_id, coalesce(p.copy, 0) AS copy, p.interface AS interface,
  p.tunnel AS tunnel,
  CASE p.match_code WHEN 0 THEN 'exact' WHEN 1 THEN 'within' WHEN 2 THEN 'carried' WHEN 3 THEN 'none' END AS match, CASE p.reason_code WHEN 0 THEN 'not sampled' WHEN 1 THEN 'ambiguous' WHEN 2 THEN 'hole in the samples' WHEN 3 THEN 'before the first sample' WHEN 4 THEN 'request socket' WHEN 5 THEN 'after the close' WHEN 6 THEN 'reset' WHEN 7 THEN 'sparse trace' WHEN 8 THEN 'time wait' WHEN 9 THEN 'not in the source' END AS reason, p.delay_ns AS delay_ns, p.delay_variation_ns AS delay_variation_ns,
  p.sacked_bytes AS sacked_bytes,
  CASE WHEN p.is_out AND p.match_code < 2 THEN r.what % 12 / 3 = 2 END AS retransmission,
  z.real_base_ns + u.mono_off + r.mono_off + u.clock_off + r.clock_off AS sample_ts_ns, CASE r.what % 12 / 3 WHEN 0 THEN 'ack' WHEN 1 THEN 'send' WHEN 2 THEN 'retransmit' WHEN 3 THEN 'state' END AS sample_kind, CASE r.what % 3 WHEN 0 THEN 'before' WHEN 1 THEN 'after' WHEN 2 THEN 'transmit' END AS sample_phase,
  coalesce(p.carried_nxt, (u.own + coalesce(r.own, 0) + r.nxt_off) & 4294967295) AS snd_nxt,
  coalesce(p.carried_una, (u.own + coalesce(r.own, 0) + r.nxt_off - (r.nxt_off + r.una_off)) & 4294967295) AS snd_una,
  (u.own + coalesce(r.own, 0) + r.nxt_off + r.notsent) & 4294967295 AS write_seq,
  a.snd_cwnd AS snd_cwnd,
  d.snd_ssthresh AS snd_ssthresh,
  a.snd_wnd AS snd_wnd,
  (u.peer + coalesce(r.peer, 0) + r.rcv_off) & 4294967295 AS rcv_nxt,
  a.rcv_wnd AS rcv_wnd,
  a.srtt_us AS srtt_us,
  a.mdev_us AS mdev_us,
  d.rttvar_us AS rttvar_us,
  d.min_rtt_us AS min_rtt_us,
  coalesce(a.srtt_us, 0) + coalesce(d.rttvar_us, 0) + a.rto_off AS rto_us,
  d.mss AS mss,
  r.packets_out AS packets_out,
  a.retrans_out AS retrans_out,
  d.lost_out AS lost_out,
  a.sacked_out AS sacked_out,
  coalesce((p.carried_nxt - p.carried_una) & 4294967295, (coalesce(r.nxt_off, 0) + r.una_off) & 4294967295) AS bytes_in_flight,
  d.ca_state AS ca_state,
  d.retransmits AS retransmits,
  d.reordering AS reordering,
  u.delivered + a.delivered_off AS delivered,
  d.lost AS lost,
  u.bytes_sent + coalesce(r.own, 0) + coalesce(r.nxt_off, 0) + CASE WHEN r.what % 12 / 3 IN (1, 2) THEN coalesce(r.len, 0) ELSE 0 END + r.sent_off AS bytes_sent,
  u.bytes_acked + coalesce(r.own, 0) - coalesce(r.una_off, 0) + a.acked_off AS bytes_acked,
  d.bytes_retrans AS bytes_retrans,
  u.segs_out + r.segs_off AS segs_out,
  CASE WHEN a.rate_interval_us > 0 THEN a.rate_delivered * d.mss * 1000000 / a.rate_interval_us END AS delivery_rate,
  d.rate_app_limited AS rate_app_limited,
  a.pacing_rate AS pacing_rate,
  d.cwnd_limited AS cwnd_limited,
  r.notsent AS notsent_bytes,
  d.sk_mark AS sk_mark,
  d.sk_state AS sk_state,
  CASE WHEN p.is_out AND p.match_code < 2 THEN max((((u.own + coalesce(r.own, 0) + r.nxt_off) & 4294967295) - ((u.own + coalesce(r.own, 0) + r.nxt_off - (r.nxt_off + r.una_off)) & 4294967295)) & 4294967295,
    ((p.seq + p.len + (p.flags >> 1 & 1) + (p.flags & 1) - ((u.own + coalesce(r.own, 0) + r.nxt_off - (r.nxt_off + r.una_off)) & 4294967295) + 2147483648) & 4294967295) - 2147483648) END AS bytes_in_flight_with_packet
FROM packet_rows p LEFT JOIN sample_rows r ON r.id = p.sample_id LEFT JOIN sample_runs u ON u.first_id = r.id - r.run_off
  LEFT JOIN flows f ON f.id = u.flow_id LEFT JOIN sessions z ON z.id = f.session_id
  LEFT JOIN ack_rows a ON a.id = u.ack_id + r.ack_off LEFT JOIN seldom_rows d ON d.id = u.seldom_id + a.seldom_off;
CREATE VIEW samples_without_packet AS SELECT n.capture_id AS capture_id, u.flow_id AS flow_id,
  n.sample_id AS sample_id, CASE n.outcome_code WHEN 0 THEN 'joined' WHEN 1 THEN 'ambiguous' WHEN 2 THEN 'failed locally' WHEN 3 THEN 'dropped in the qdisc' WHEN 4 THEN 'not captured' WHEN 5 THEN 'outside the capture' WHEN 6 THEN 'flow not in the capture' END AS reason
FROM packetless_rows n JOIN sample_rows r ON r.id = n.sample_id JOIN sample_runs u ON u.first_id = r.id - r.run_off;
CREATE VIEW congestion_internals AS SELECT i.flow_id AS flow_id, i.sample_id AS sample_id,
  u.first_serial + r.id - u.first_id AS serial, z.real_base_ns + u.mono_off + r.mono_off + u.clock_off + r.clock_off AS ts_ns,
  CASE
    WHEN coalesce(i.cubic_last_max_cwnd, i.cubic_origin_point, i.cubic_k_us, i.cubic_epoch_start_ns, i.cubic_tcp_cwnd, i.cubic_delay_min_us, i.cubic_hystart_found, i.cubic_hystart_curr_rtt_us, i.cubic_hystart_samples) IS NOT NULL THEN 'cubic'
    WHEN coalesce(i.bbr_mode, i.bbr_bw_bytes_per_s, i.bbr_lt_bw_used, i.bbr_min_rtt_us, i.bbr_pacing_gain, i.bbr_cwnd_gain, i.bbr_cycle_idx, i.bbr_full_bw_reached, i.bbr_prior_cwnd) IS NOT NULL THEN 'bbr'
    WHEN coalesce(i.dctcp_alpha, i.dctcp_ce_state) IS NOT NULL THEN 'dctcp' END AS congestion,
  i.cubic_last_max_cwnd AS cubic_last_max_cwnd,
  i.cubic_origin_point AS cubic_origin_point,
  i.cubic_k_us AS cubic_k_us,
  i.cubic_epoch_start_ns AS cubic_epoch_start_ns,
  i.cubic_tcp_cwnd AS cubic_tcp_cwnd,
  i.cubic_delay_min_us AS cubic_delay_min_us,
  i.cubic_hystart_found AS cubic_hystart_found,
  i.cubic_hystart_curr_rtt_us AS cubic_hystart_curr_rtt_us,
  i.cubic_hystart_samples AS cubic_hystart_samples,
  CASE i.bbr_mode WHEN 0 THEN 'STARTUP' WHEN 1 THEN 'DRAIN' WHEN 2 THEN 'PROBE_BW' WHEN 3 THEN 'PROBE_RTT' END AS bbr_mode,
  i.bbr_bw_bytes_per_s AS bbr_bw_bytes_per_s,
  i.bbr_lt_bw_used AS bbr_lt_bw_used,
  i.bbr_min_rtt_us AS bbr_min_rtt_us,
  i.bbr_pacing_gain AS bbr_pacing_gain,
  i.bbr_cwnd_gain AS bbr_cwnd_gain,
  i.bbr_cycle_idx AS bbr_cycle_idx,
  i.bbr_full_bw_reached AS bbr_full_bw_reached,
  i.bbr_prior_cwnd AS bbr_prior_cwnd,
  i.dctcp_alpha AS dctcp_alpha,
  i.dctcp_ce_state AS dctcp_ce_state
FROM internal_rows i JOIN sample_rows r ON r.id = i.sample_id JOIN sample_runs u ON u.first_id = r.id - r.run_off
  JOIN flows f ON f.id = u.flow_id JOIN sessions z ON z.id = f.session_id;
CREATE VIEW packet_internals AS SELECT p.id AS packet_id, i.sample_id AS sample_id,
  CASE
    WHEN coalesce(i.cubic_last_max_cwnd, i.cubic_origin_point, i.cubic_k_us, i.cubic_epoch_start_ns, i.cubic_tcp_cwnd, i.cubic_delay_min_us, i.cubic_hystart_found, i.cubic_hystart_curr_rtt_us, i.cubic_hystart_samples) IS NOT NULL THEN 'cubic'
    WHEN coalesce(i.bbr_mode, i.bbr_bw_bytes_per_s, i.bbr_lt_bw_used, i.bbr_min_rtt_us, i.bbr_pacing_gain, i.bbr_cwnd_gain, i.bbr_cycle_idx, i.bbr_full_bw_reached, i.bbr_prior_cwnd) IS NOT NULL THEN 'bbr'
    WHEN coalesce(i.dctcp_alpha, i.dctcp_ce_state) IS NOT NULL THEN 'dctcp' END AS congestion,
  i.cubic_last_max_cwnd AS cubic_last_max_cwnd,
  i.cubic_origin_point AS cubic_origin_point,
  i.cubic_k_us AS cubic_k_us,
  i.cubic_epoch_start_ns AS cubic_epoch_start_ns,
  i.cubic_tcp_cwnd AS cubic_tcp_cwnd,
  i.cubic_delay_min_us AS cubic_delay_min_us,
  i.cubic_hystart_found AS cubic_hystart_found,
  i.cubic_hystart_curr_rtt_us AS cubic_hystart_curr_rtt_us,
  i.cubic_hystart_samples AS cubic_hystart_samples,
  CASE i.bbr_mode WHEN 0 THEN 'STARTUP' WHEN 1 THEN 'DRAIN' WHEN 2 THEN 'PROBE_BW' WHEN 3 THEN 'PROBE_RTT' END AS bbr_mode,
  i.bbr_bw_bytes_per_s AS bbr_bw_bytes_per_s,
  i.bbr_lt_bw_used AS bbr_lt_bw_used,
  i.bbr_min_rtt_us AS bbr_min_rtt_us,
  i.bbr_pacing_gain AS bbr_pacing_gain,
  i.bbr_cwnd_gain AS bbr_cwnd_gain,
  i.bbr_cycle_idx AS bbr_cycle_idx,
  i.bbr_full_bw_reached AS bbr_full_bw_reached,
  i.bbr_prior_cwnd AS bbr_prior_cwnd,
  i.dctcp_alpha AS dctcp_alpha,
  i.dctcp_ce_state AS dctcp_ce_state
FROM packet_rows p JOIN internal_rows i ON i.sample_id = (
  SELECT l.sample_id FROM internal_rows l WHERE l.flow_id = p.flow_id AND l.sample_id <= p.sample_id
  ORDER BY l.sample_id DESC LIMIT 1);
CREATE VIEW ack_effects AS SELECT u.flow_id AS flow_id, r.id AS before_id, x.id AS after_id,
  z.real_base_ns + u.mono_off + r.mono_off + u.clock_off + r.clock_off AS ts_ns, xu.mono_off + x.mono_off - (u.mono_off + r.mono_off) AS duration_ns,
  (CASE WHEN r.what % 12 / 3 IN (1, 2) THEN u.own + r.own ELSE u.peer + r.peer END) & 4294967295 AS seq,
  r.len AS len,
  (CASE WHEN r.what % 12 / 3 IN (1, 2) THEN u.peer + r.peer ELSE u.own + r.own END) & 4294967295 AS ack,
  CASE WHEN r.own IS NOT NULL
    THEN r.what / 12 + 16 - 2 * (r.what / 12 & 16) END AS flags,
  (((xu.own + coalesce(x.own, 0) + x.nxt_off - (x.nxt_off + x.una_off)) & 4294967295) - ((u.own + coalesce(r.own, 0) + r.nxt_off - (r.nxt_off + r.una_off)) & 4294967295)) & 4294967295 AS acked_bytes,
  ((((xu.delivered + xa.delivered_off) - (u.delivered + a.delivered_off)) + 2147483648) & 4294967295) - 2147483648 AS delivered,
  ((xd.lost) - (d.lost)) & 4294967295 AS lost,
  CASE WHEN x.id = r.id + 1 THEN 0 ELSE
    (SELECT count(*) FROM sample_runs v CROSS JOIN sample_rows n
     WHERE v.flow_id = u.flow_id AND v.first_id >= u.first_id AND v.first_id <= xu.first_id
       AND n.id >= max(v.first_id, r.id + 1) AND n.id <= min(v.last_id, x.id - 1) AND n.what % 12 IN (5, 8)
       AND NOT EXISTS (SELECT 1 FROM rare_rows o WHERE o.sample_id = n.id AND o.error IS NOT NULL)) END AS segments_sent,
  CASE WHEN x.id = r.id + 1 THEN 0 ELSE
    (SELECT count(*) FROM sample_runs v CROSS JOIN sample_rows n
     WHERE v.flow_id = u.flow_id AND v.first_id >= u.first_id AND v.first_id <= xu.first_id
       AND n.id >= max(v.first_id, r.id + 1) AND n.id <= min(v.last_id, x.id - 1) AND n.what % 12 IN (8)
       AND NOT EXISTS (SELECT 1 FROM rare_rows o WHERE o.sample_id = n.id AND o.error IS NOT NULL)) END AS retransmitted,
  r.packets_out AS packets_out_before, x.packets_out AS packets_out_after,
  a.retrans_out AS retrans_out_before, xa.retrans_out AS retrans_out_after,
  d.lost_out AS lost_out_before, xd.lost_out AS lost_out_after,
  a.sacked_out AS sacked_out_before, xa.sacked_out AS sacked_out_after,
  (coalesce(r.nxt_off, 0) + r.una_off) & 4294967295 AS bytes_in_flight_before, (coalesce(x.nxt_off, 0) + x.una_off) & 4294967295 AS bytes_in_flight_after,
  a.snd_cwnd AS snd_cwnd_before, xa.snd_cwnd AS snd_cwnd_after,
  d.snd_ssthresh AS snd_ssthresh_before, xd.snd_ssthresh AS snd_ssthresh_after,
  d.ca_state AS ca_state_before, xd.ca_state AS ca_state_after
FROM sample_runs u JOIN sample_rows r ON r.id >= u.first_id AND r.id <= u.last_id AND u.first_id = r.id - r.run_off
  JOIN flows f ON f.id = u.flow_id JOIN sessions z ON z.id = f.session_id
  JOIN sample_rows x ON x.id = coalesce(
    (SELECT n.id FROM sample_rows n WHERE n.id > r.id AND n.id <= u.last_id AND n.what % 12 < 3 ORDER BY n.id LIMIT 1),
    (SELECT n.id FROM sample_runs v CROSS JOIN sample_rows n WHERE v.flow_id = u.flow_id AND v.first_id > u.last_id
       AND n.id >= v.first_id AND n.id <= v.last_id AND n.what % 12 < 3 ORDER BY v.first_id, n.id LIMIT 1))
  JOIN sample_runs xu ON xu.first_id = x.id - x.run_off
  JOIN ack_rows a ON a.id = u.ack_id + r.ack_off JOIN seldom_rows d ON d.id = u.seldom_id + a.seldom_off
  JOIN ack_rows xa ON xa.id = xu.ack_id + x.ack_off JOIN seldom_rows xd ON xd.id = xu.seldom_id + xa.seldom_off
WHERE r.what % 12 = 0 AND x.what % 12 = 1 AND x.what / 12 = r.what / 12 AND (CASE WHEN x.what % 12 / 3 IN (1, 2) THEN xu.own + x.own ELSE xu.peer + x.peer END) & 4294967295 = (CASE WHEN r.what % 12 / 3 IN (1, 2) THEN u.own + r.own ELSE u.peer + r.peer END) & 4294967295 AND x.len = r.len AND (CASE WHEN x.what % 12 / 3 IN (1, 2) THEN xu.peer + x.peer ELSE xu.own + x.own END) & 4294967295 = (CASE WHEN r.what % 12 / 3 IN (1, 2) THEN u.peer + r.peer ELSE u.own + r.own END) & 4294967295
  AND (x.id <= u.last_id OR xu.first_serial + x.id - xu.first_id - (u.first_serial + r.id - u.first_id) = u.last_id - r.id + x.id - xu.first_id + 1
    + (SELECT coalesce(sum(v.last_id - v.first_id + 1), 0) FROM sample_runs v
       WHERE v.flow_id = u.flow_id AND v.first_id > u.first_id AND v.first_id < xu.first_id));
CREATE VIEW why_waiting AS SELECT flow_id, from_id, to_id, ts_ns, gap_ns,
  CASE
    WHEN missing OR unsent_bytes IS NULL OR cwnd_left_bytes IS NULL OR window_left_bytes IS NULL THEN NULL
    WHEN before_retransmission OR ca_state >= 3 AND unsent_bytes > 0 THEN 'recovery'
    WHEN unsent_bytes <= 0 THEN 'application'
    WHEN min(cwnd_left_bytes, window_left_bytes) < min(unsent_bytes, mss)
      OR is_after_ack AND min(cwnd_left_bytes, window_left_bytes) < min(unsent_bytes, window_bytes / 3)
      THEN CASE WHEN window_left_bytes < cwnd_left_bytes THEN 'receive window' ELSE 'cwnd' END
    WHEN unsent_bytes < mss AND packets_in_flight > 0 AND is_after_ack THEN 'application'
    ELSE 'pacing' END AS reason,
  before_retransmission, unsent_bytes, cwnd_left_bytes, window_left_bytes, packets_in_flight, snd_cwnd, ca_state
FROM (SELECT flow_id, from_id, to_id, ts_ns, gap_ns, missing, before_retransmission, is_after_ack, unsent_bytes,
    (snd_cwnd - packets_in_flight) * mss AS cwnd_left_bytes, snd_wnd - bytes_in_flight AS window_left_bytes,
    min(snd_wnd, snd_cwnd * mss) AS window_bytes, packets_in_flight, snd_cwnd, mss, ca_state
  FROM (SELECT u.flow_id AS flow_id, r.id AS from_id, x.id AS to_id,
    z.real_base_ns + u.mono_off + r.mono_off + u.clock_off + r.clock_off AS ts_ns, xu.mono_off + x.mono_off - (u.mono_off + r.mono_off) AS gap_ns,
    NOT ((x.id <= u.last_id OR xu.first_serial + x.id - xu.first_id - (u.first_serial + r.id - u.first_id) = u.last_id - r.id + x.id - xu.first_id + 1
    + (SELECT coalesce(sum(v.last_id - v.first_id + 1), 0) FROM sample_runs v
       WHERE v.flow_id = u.flow_id AND v.first_id > u.first_id AND v.first_id < xu.first_id))) AS missing, x.what % 12 = 8 AS before_retransmission, x.id <> r.id + 1 AS is_after_ack,
    (r.notsent) - (CASE WHEN r.what % 12 = 5 THEN r.len + (r.what / 12 & 1) - coalesce(r.nxt_off, 0) ELSE 0 END) AS unsent_bytes, ((coalesce(r.nxt_off, 0) + r.una_off) & 4294967295) + (CASE WHEN r.what % 12 = 5 THEN r.len + (r.what / 12 & 1) - coalesce(r.nxt_off, 0) ELSE 0 END) AS bytes_in_flight,
    (r.packets_out) - (a.sacked_out) - (d.lost_out) + (a.retrans_out) + (r.len + (d.mss) - 1) / (d.mss) AS packets_in_flight,
    (a.snd_cwnd) AS snd_cwnd, (a.snd_wnd) AS snd_wnd, (d.mss) AS mss, (d.ca_state) AS ca_state
  FROM sample_runs u JOIN sample_rows r ON r.id >= u.first_id AND r.id <= u.last_id AND u.first_id = r.id - r.run_off
  JOIN flows f ON f.id = u.flow_id JOIN sessions z ON z.id = f.session_id
    JOIN sample_rows x ON x.id = coalesce(
    (SELECT n.id FROM sample_rows n WHERE n.id > r.id AND n.id <= u.last_id AND n.what % 12 IN (5, 8) AND n.len > 0
    AND NOT EXISTS (SELECT 1 FROM rare_rows o WHERE o.sample_id = n.id AND o.error IS NOT NULL) ORDER BY n.id LIMIT 1),
    (SELECT n.id FROM sample_runs v CROSS JOIN sample_rows n WHERE v.flow_id = u.flow_id AND v.first_id > u.last_id
       AND n.id >= v.first_id AND n.id <= v.last_id AND n.what % 12 IN (5, 8) AND n.len > 0
    AND NOT EXISTS (SELECT 1 FROM rare_rows o WHERE o.sample_id = n.id AND o.error IS NOT NULL) ORDER BY v.first_id, n.id LIMIT 1))
    JOIN sample_runs xu ON xu.first_id = x.id - x.run_off
    JOIN ack_rows a ON a.id = u.ack_id + r.ack_off JOIN seldom_rows d ON d.id = u.seldom_id + a.seldom_off
  WHERE r.what % 12 IN (5, 8) AND r.len > 0
    AND NOT EXISTS (SELECT 1 FROM rare_rows o WHERE o.sample_id = r.id AND o.error IS NOT NULL) AND z.sample_mode = 'all'));
CREATE VIEW flow_summary AS SELECT f.id AS flow_id, f.session_id AS session_id, f.local_addr AS local_addr, f.local_port AS local_port,
  f.remote_addr AS remote_addr, f.remote_port AS remote_port, f.congestion AS congestion,
  f.last_ns - f.first_ns AS duration_ns, count(*) AS samples, max(s.bytes_acked) AS bytes_acked,
  max(s.bytes_sent) AS bytes_sent, max(s.bytes_retrans) AS bytes_retrans,
  sum(s.kind = 'retransmit' AND s.phase = 'transmit') AS retransmissions, min(s.min_rtt_us) AS min_rtt_us,
  avg(nullif(s.srtt_us, 0)) AS mean_srtt_us, max(s.srtt_us) AS max_srtt_us, max(s.snd_cwnd) AS max_snd_cwnd
FROM flows f JOIN samples s ON s.flow_id = f.id GROUP BY f.id;
CREATE VIEW cwnd AS SELECT flow_id, ts_ns, kind, snd_cwnd, snd_ssthresh, packets_out, bytes_in_flight, snd_wnd, mss, ca_state,
  cwnd_limited
FROM samples;
CREATE VIEW rtt AS SELECT flow_id, ts_ns, srtt_us, mdev_us, rttvar_us, min_rtt_us, rto_us FROM samples WHERE phase = 'after';
CREATE VIEW throughput AS SELECT flow_id, ts_ns / 100000000 * 100000000 AS ts_ns, sum(len) AS sent_bytes,
  sum(CASE WHEN kind = 'retransmit' THEN len ELSE 0 END) AS retransmitted_bytes, sum(len) * 80 AS sent_bits_per_s
FROM samples WHERE phase = 'transmit' AND error IS NULL GROUP BY flow_id, ts_ns / 100000000;
CREATE VIEW retransmissions AS SELECT flow_id, id AS sample_id, ts_ns, seq, len, snd_una, snd_cwnd, snd_ssthresh, ca_state, packets_out, lost_out,
  retrans_out, sacked_out, retransmits, srtt_us, rto_us, error
FROM samples WHERE kind = 'retransmit' AND phase = 'transmit';
CREATE VIEW retransmitted_packets AS SELECT flow_id, capture_id, number, ts_ns, seq, len, match, snd_una, snd_cwnd, snd_ssthresh, ca_state, packets_out,
  lost_out, retrans_out, sacked_out, srtt_us, rto_us
FROM packet_state WHERE retransmission = 1;
CREATE VIEW state_changes AS SELECT flow_id, ts_ns, before_id, after_id, ca_state_before, ca_state_after, snd_cwnd_before, snd_cwnd_after,
  snd_ssthresh_before, snd_ssthresh_after, acked_bytes, lost, retransmitted
FROM ack_effects WHERE ca_state_before <> ca_state_after;
CREATE VIEW waiting_totals AS SELECT flow_id, reason, count(*) AS gaps, sum(gap_ns) AS total_ns, max(gap_ns) AS longest_ns
FROM why_waiting GROUP BY flow_id, reason;
CREATE VIEW match_quality AS SELECT flow_id, capture_id, dir, match, reason, count(*) AS packets
FROM packets GROUP BY flow_id, capture_id, dir, match, reason;
CREATE VIEW delays AS SELECT flow_id, capture_id, dir, count(*) AS packets, min(delay_ns) AS min_delay_ns, avg(delay_ns) AS mean_delay_ns,
  max(delay_ns) AS max_delay_ns, avg(delay_variation_ns) AS mean_delay_variation_ns,
  max(delay_variation_ns) AS max_delay_variation_ns
FROM packets WHERE match IN ('exact', 'within') GROUP BY flow_id, capture_id, dir;
COMMIT;

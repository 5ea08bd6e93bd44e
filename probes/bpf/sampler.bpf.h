/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The sampler's body, included twice: with DIRECT for programs whose pointers the verifier knows (tp_btf, fentry,
 * fexit), which load kernel members as if they were their own, and without for raw tracepoints and kprobes, which
 * must ask bpf_probe_read_kernel for each. Owns what is sampled and when; must not know how programs are attached.
 */
#ifdef DIRECT
#define TWIN(name) name##_direct
#define READ(access) (access)
#define READ_BITS(p, member) BITS_DIRECT(p, member)
#else
#define TWIN(name) name##_probed
#define READ(access) PROBED(access)
#define READ_BITS(p, member) BITS_PROBED(p, member)
#endif

/* The full TCP socket behind a socket, NULL for request, time-wait, listening and control sockets. */
INLINE struct tcp_sock *TWIN(tcp_of)(struct sock *sk)
{
	u8 state;

	if (!sk)
		return NULL;
#ifdef DIRECT
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

	if (!tp)
		return NULL;
#else
	struct tcp_sock *tp = (struct tcp_sock *)sk;
#endif
	struct sock *full = &tp->inet_conn.icsk_inet.sk;

	state = READ(full->__sk_common.skc_state);
	if (state == TCP_NEW_SYN_RECV || state == TCP_TIME_WAIT || state == TCP_LISTEN)
		return NULL;
	/* the RST and time-wait senders are raw sockets that carry the protocol number of TCP */
	if (READ(full->sk_protocol) != IPPROTO_TCP || READ(full->sk_type) != SOCK_STREAM)
		return NULL;
	return tp;
}

/* Inode number of the socket's network namespace, as in /proc/PID/ns/net. */
INLINE u32 TWIN(netns)(struct sock *sk)
{
	struct net *net = READ(sk->__sk_common.skc_net.net);

	return READ(net->ns.inum);
}

INLINE bool TWIN(addresses)(struct sock *sk, u16 family, struct in6_addr *local, struct in6_addr *remote)
{
	if (family == AF_INET) {
		map_v4(local, READ(sk->__sk_common.skc_rcv_saddr));
		map_v4(remote, READ(sk->__sk_common.skc_daddr));
		return true;
	}
	if (family == AF_INET6) {
		bpf_probe_read_kernel(local, sizeof(*local), &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_probe_read_kernel(remote, sizeof(*remote), &sk->__sk_common.skc_v6_daddr);
		return true;
	}
	return false;
}

INLINE bool TWIN(wanted)(struct sock *sk)
{
	u16 family = READ(sk->__sk_common.skc_family);
	u16 remote_port = from_be16(READ(sk->__sk_common.skc_dport));
	u16 local_port = READ(sk->__sk_common.skc_num);

	/* unbound or not yet connected: the socket comes by again with its first segment */
	if (!remote_port || !local_port)
		return false;
	if (family != AF_INET && family != AF_INET6)
		return false;
	if (cfg_port_count && !port_wanted(local_port) && !port_wanted(remote_port))
		return false;
	if (cfg_has_mark && READ(sk->sk_mark) != cfg_mark)
		return false;
	if (cfg_netns && TWIN(netns)(sk) != cfg_netns)
		return false;
	if (cfg_host_count) {
		struct in6_addr local, remote;

		if (!TWIN(addresses)(sk, family, &local, &remote))
			return false;
		if (!host_wanted(&local) && !host_wanted(&remote))
			return false;
	}
	return true;
}

/* Tells user space what the flow is; repeated until a record got through. */
INLINE void TWIN(announce)(struct flow *f, struct tcp_sock *tp, u8 state)
{
	struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	struct tp_flow *e = NULL;
	bool full = false;

	RESERVE(e, full);
	if (!e) {
		if (f->announced >= FLOW_OUTDATED)
			f->announced = FLOW_OUTDATED;
		else
			f->announced = full ? FLOW_NO_ROOM : FLOW_NO_LOCK;
		return;
	}
	e->type = RECORD_FLOW;
	e->flow = f->id;
	e->mono_ns = bpf_ktime_get_ns();
	e->netns = TWIN(netns)(sk);
	e->family = READ(sk->__sk_common.skc_family);
	e->local_port = READ(sk->__sk_common.skc_num);
	e->remote_port = from_be16(READ(sk->__sk_common.skc_dport));
	e->state = state;
#ifdef DIRECT
	e->cookie = cfg_cookie_helper ? bpf_get_socket_cookie(sk) : (u64)READ(sk->__sk_common.skc_cookie.counter);
#else
	e->cookie = (u64)READ(sk->__sk_common.skc_cookie.counter);
#endif
	if (!TWIN(addresses)(sk, e->family, (struct in6_addr *)e->local_addr, (struct in6_addr *)e->remote_addr)) {
		__builtin_memset(e->local_addr, 0, sizeof(e->local_addr));
		__builtin_memset(e->remote_addr, 0, sizeof(e->remote_addr));
	}
	e->wscale_ok = READ_BITS(tp, rx_opt.wscale_ok);
	e->snd_wscale = READ_BITS(tp, rx_opt.snd_wscale);
	e->rcv_wscale = READ_BITS(tp, rx_opt.rcv_wscale);
	const struct tcp_congestion_ops *ops = READ(tp->inet_conn.icsk_ca_ops);
	u64 name[2] = {};

	__builtin_memset(e->owner, 0, sizeof(e->owner));
	if (ops) {
		bpf_probe_read_kernel(name, sizeof(name), &ops->name);
		READ_OWNER(e->owner, ops);
	}
	__builtin_memcpy(e->congestion, name, sizeof(e->congestion));
	__builtin_memset(e->pad, 0, sizeof(e->pad));
	f->ca_ops = (u64)ops;
	f->internals = 0;
	f->congestion = congestion_named(name);
	f->announced = FLOW_ANNOUNCED;
	bpf_ringbuf_submit(e, BPF_RB_FORCE_WAKEUP);
}

/* The socket's flow, made when a wanted socket is seen for the first time; NULL where it is not recorded. */
INLINE struct flow *TWIN(flow_of)(struct tcp_sock *tp)
{
	struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	u64 key = (u64)tp;
	u32 ports = READ(sk->__sk_common.skc_portpair);
	struct flow *f = bpf_map_lookup_elem(&flows, &key);

	/* a socket's memory is used again at once: other ports, another flow, even if its end went unseen */
	if (likely(f) && f->ports == ports) {
		if (unlikely(f->announced != FLOW_ANNOUNCED || f->ca_ops != (u64)READ(tp->inet_conn.icsk_ca_ops)))
			TWIN(announce)(f, tp, READ(sk->__sk_common.skc_state));
		return f;
	}
	if (!TWIN(wanted)(sk))
		return NULL;

	struct flow fresh = {
		.id = NEXT_FLOW(),
		.ports = ports,
		.present = STATE_PRESENT(tp),
	};

	long err = 0;

	for (u32 i = 0; i < LOCK_ATTEMPTS; i++) {
		err = bpf_map_update_elem(&flows, &key, &fresh, 0);
		if (!err || err == -E2BIG)
			break;
	}
	if (err) {
		struct counters *c = my_counters();

		if (c && err == -E2BIG)
			c->flow_table_full++;
		else if (c)
			c->lock_refused++;
		return NULL;
	}
	f = bpf_map_lookup_elem(&flows, &key);
	if (f)
		TWIN(announce)(f, tp, READ(sk->__sk_common.skc_state));
	return f;
}

/* With `--sample cwnd`: has this socket's congestion state moved since its last sample? */
INLINE bool TWIN(congestion_moved)(struct flow *f, struct tcp_sock *tp)
{
	u32 cwnd = READ(tp->snd_cwnd), ssthresh = READ(tp->snd_ssthresh);
	u8 ca_state = READ_BITS(tp, inet_conn.icsk_ca_state);

	if (f->sampled && f->cwnd == cwnd && f->ssthresh == ssthresh && f->ca_state == ca_state)
		return false;
	f->sampled = 1;
	f->cwnd = cwnd;
	f->ssthresh = ssthresh;
	f->ca_state = ca_state;
	return true;
}

/*
 * What the congestion control holds inside, with the sample that has just been taken: only where user space knows what
 * it means, and only if it has changed. What gets no room is counted, and comes with the next sample.
 */
INLINE void TWIN(internals)(struct flow *f, struct tcp_sock *tp, u64 serial)
{
	u32 at = f->congestion - 1;

	/* until the congestion control has made itself at home, what lies there is another one's, or nothing */
	if (!f->congestion || !serial || !READ_BITS(tp, inet_conn.icsk_ca_initialized))
		return;
	const struct internals_mask *mask = bpf_map_lookup_elem(&internals_masks, &at);

	if (!mask)
		return;
	u64 words[INTERNALS_WORDS] = {}, count = mask->count, hash = 0xcbf29ce484222325ULL;
	u64 room = field_size(tp->inet_conn.icsk_ca_priv) / sizeof(*words);

	if (room > INTERNALS_WORDS)
		room = INTERNALS_WORDS;
	if (count > room)
		count = room;
	if (!count)
		return;
	bpf_probe_read_kernel(words, count * sizeof(*words), &tp->inet_conn.icsk_ca_priv);
	for (u32 i = 0; i < INTERNALS_WORDS; i++) {
		if (i >= count)
			break;
		words[i] &= mask->words[i];
		/* FNV-1a, by words */
		hash = (hash ^ words[i]) * 0x100000001b3ULL;
	}
	if (hash == f->internals)
		return;
	struct tp_internals *e = NULL;
	bool full = false;

	RESERVE(e, full);
	if (!e) {
		struct counters *c = my_counters();

		if (c && full)
			c->ring_full++;
		else if (c)
			c->lock_refused++;
		return;
	}
	e->type = RECORD_INTERNALS;
	e->jiffies = bpf_jiffies64();
	e->flow = f->id;
	e->serial = serial;
	e->mono_ns = bpf_ktime_get_ns();
	e->mss = READ(tp->mss_cache);
	e->congestion = at;
	__builtin_memset(e->pad, 0, sizeof(e->pad));
	__builtin_memcpy(e->words, words, sizeof(e->words));
	f->internals = hash;
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

/*
 * One record: the segment, then the state. A sample that gets no room leaves a hole in the flow's serials. Returns the
 * sample's serial, 0 where there is none.
 */
INLINE u64 TWIN(sample)(struct flow *f, struct tcp_sock *tp, const struct segment *g, u8 kind, u8 phase, u8 new_state,
			 s32 error, u32 lane)
{
	struct counters *c = my_counters();

	if (!c)
		return 0;
	if (cfg_sparse && kind != KIND_STATE && !TWIN(congestion_moved)(f, tp))
		return 0;

	u64 serial = NEXT_SERIAL(f);
	struct tp_sample *e = NULL;
	struct lane *taken = NULL;
	bool full = f->announced == FLOW_NO_ROOM;
	/* a wake-up costs more than a sample: the reader comes by on a timer, and is called where that is too late */
	u64 flags = BPF_RB_NO_WAKEUP;

	if (likely(f->announced >= FLOW_OUTDATED)) {
		e = lane_room(lane, &taken, &flags);
		if (!e)
			RESERVE(e, full);
	}
	if (!e) {
		if (full) {
			c->ring_full++;
		} else {
			c->lock_refused++;
			__sync_fetch_and_add(&f->refused, 1);
		}
		/* the next segment tells what this one would have */
		f->sampled = 0;
		return 0;
	}
	bool unseen = f->unseen;

	if (unlikely(unseen)) {
		f->unseen = 0;
		serial = NEXT_SERIAL(f);
	}
	e->type = RECORD_SAMPLE;
	e->refused = f->refused < 0xffff ? f->refused : 0xffff;
	f->refused = 0;
	e->error = error;
	e->flow = f->id;
	e->serial = serial;
	e->mono_ns = bpf_ktime_get_ns();
	e->seq = g->seq;
	e->len = g->len;
	e->ack = g->ack;
	e->tsval = g->tsval;
	e->ip_id = g->ip_id;
	e->flags = g->flags;
	e->kind = kind;
	e->phase = phase;
	e->has = g->has | (unseen ? HAS_UNSEEN : 0);
	e->present = f->present;
	READ_STATE(e, tp);
	if (new_state)
		e->sk_state = new_state;

	if (likely(taken)) {
		leave_lane(taken);
		return serial;
	}
	c->unread_bytes += sizeof(*e);
	if (unlikely(c->unread_bytes >= cfg_look_bytes)) {
		c->unread_bytes = 0;
		if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) >= cfg_wake_bytes)
			flags = BPF_RB_FORCE_WAKEUP;
	}
	bpf_ringbuf_submit(e, flags);
	return serial;
}

/* A received segment as TCP has it in hand; the control block knows of merged segments what the header does not. */
INLINE void TWIN(received_segment)(const struct sk_buff *skb, struct segment *g)
{
	const struct tcp_skb_cb *cb = (const struct tcp_skb_cb *)&skb->cb;
	struct heads h;

	__builtin_memset(g, 0, sizeof(*g));
	if (!read_heads(&h, READ(skb->head), READ(skb->network_header), READ(skb->transport_header)))
		return;
	parse_head(&h.tcp, g);
	parse_ip(&h, g);
	g->seq = READ(cb->seq);
	g->ack = READ(cb->ack_seq);
	g->len = READ(cb->end_seq) - g->seq - !!(g->flags & TCPHDR_SYN) - !!(g->flags & TCPHDR_FIN);
}

INLINE int TWIN(on_receive)(struct sock *sk, const struct sk_buff *skb, u8 watch, u32 lane)
{
	struct tcp_sock *tp = TWIN(tcp_of)(sk);

	if (!tp)
		return 0;
	struct flow *f = TWIN(flow_of)(tp);

	if (!f)
		return 0;
	/* the socket is locked from entry to return: the segment in hand is this one, or one that has returned unseen */
	if (watch == WATCH_MISSED && f->rx_skb == (u64)skb)
		return 0;
	if (watch != WATCH_ENTRY && unlikely(f->rx_skb)) {
		struct counters *c = my_counters();

		if (c)
			c->return_missed++;
	}
	TWIN(received_segment)(skb, &f->rx);
	f->rx_skb = (u64)skb;
	u64 serial = TWIN(sample)(f, tp, &f->rx, KIND_ACK, PHASE_BEFORE, 0, 0, lane);

	/* read once for each segment: after it, where that is seen */
	if (watch == WATCH_ENTRY)
		TWIN(internals)(f, tp, serial);
	return 0;
}

/* The segment is gone by now; the socket has been locked since on_receive, which kept what it was. */
INLINE int TWIN(on_received)(struct sock *sk, u32 lane)
{
	struct tcp_sock *tp = TWIN(tcp_of)(sk);
	u64 key = (u64)tp;

	if (!tp)
		return 0;
	struct flow *f = bpf_map_lookup_elem(&flows, &key);

	if (!f || !f->rx_skb)
		return 0;
	f->rx_skb = 0;
	TWIN(internals)(f, tp, TWIN(sample)(f, tp, &f->rx, KIND_ACK, PHASE_AFTER, 0, 0, lane));
	return 0;
}

/*
 * Without a probe on tcp_rcv_state_process, what it does with a segment shows only when it lets go of the segment:
 * pure ACKs, in every state but ESTABLISHED, end in sk_skb_reason_drop, which names the socket.
 */
INLINE int TWIN(on_free)(const struct sk_buff *skb, u32 reason, struct sock *sk)
{
	if (!sk || reason != DROP_NOT_SPECIFIED)
		return 0;
	struct tcp_sock *tp = TWIN(tcp_of)(sk);

	if (!tp)
		return 0;
	struct flow *f = TWIN(flow_of)(tp);

	if (!f)
		return 0;
	/* in ESTABLISHED tcp_probe has seen it, unless it is the ACK that made the connection established */
	if (READ(sk->__sk_common.skc_state) == TCP_ESTABLISHED && f->rx_skb)
		return 0;
	TWIN(received_segment)(skb, &f->rx);
	f->rx_skb = (u64)skb;
	TWIN(sample)(f, tp, &f->rx, KIND_ACK, PHASE_AFTER, 0, 0, NO_LANE);
	return 0;
}

INLINE u8 TWIN(transmit_kind)(struct tcp_sock *tp, const struct segment *g)
{
	/*
	 * New data starts at snd_nxt, which moves only after the transmission. Keepalives and window probes carry
	 * an old sequence number too, but nothing that uses one up.
	 */
	bool old = (s32)(g->seq - READ(tp->snd_nxt)) < 0;
	bool takes_space = g->len || (g->flags & (TCPHDR_SYN | TCPHDR_FIN));

	return old && takes_space ? KIND_RETRANSMIT : KIND_SEND;
}

/* net:net_dev_queue: the segment with its headers, before the queueing discipline. */
INLINE int TWIN(on_queue)(const struct sk_buff *skb, struct sock *sk)
{
	struct tcp_sock *tp = TWIN(tcp_of)(sk);
	struct segment g = {};
	struct heads h;

	if (!tp)
		return 0;
	struct flow *f = TWIN(flow_of)(tp);

	if (!f)
		return 0;
	/*
	 * Stacked devices (VLAN, bond, tunnel) show one transmission several times, and a kprobe may have seen it before;
	 * segs_out moves with each one.
	 */
	u32 segs_out = READ(tp->segs_out);

	if (f->transmitted && f->segs_out == segs_out)
		return 0;
	u8 *head = READ(skb->head);
	u16 at = READ(skb->transport_header);

	if (!read_heads(&h, head, READ(skb->network_header), at))
		return 0;
	if (((u32)h.tcp.dest << 16 | from_be16(h.tcp.source)) !=
	    ((u32)READ(sk->__sk_common.skc_dport) << 16 | READ(sk->__sk_common.skc_num))) {
		struct counters *c = my_counters();

		/* encrypted or encapsulated before the first device: what stands there is no TCP header */
		if (c)
			c->header_unreadable++;
		return 0;
	}
	parse_head(&h.tcp, &g);
	parse_ip(&h, &g);
	/* a 64-bit difference: the verifier forbids 32-bit arithmetic on what it holds for pointers */
	u64 headroom = (u64)READ(skb->data) - (u64)head;

	asm volatile("" : "+r"(headroom));
	g.len = READ(skb->len) - (at - (u32)headroom) - head_bytes(&h.tcp);

	/* since the last transmission that was shown, TCP's counters should have moved by this one alone */
	u64 bytes_sent = READ(tp->bytes_sent);
	bool all_seen = bytes_sent == f->bytes_sent + g.len && (g.len || segs_out == f->segs_out + 1);

	if (f->transmitted && !all_seen)
		leave_hole(f);
	f->transmitted = 1;
	f->segs_out = segs_out;
	f->bytes_sent = bytes_sent;
	/*
	 * What waits between TCP and the device (a SYN for its neighbour's address, NFQUEUE) comes by after snd_nxt has
	 * moved. TCP counts a retransmission before it sends it: one that is not counted is none.
	 */
	u32 total_retrans = READ(tp->total_retrans);
	u8 kind = TWIN(transmit_kind)(tp, &g);

	if (kind == KIND_RETRANSMIT && f->total_retrans == total_retrans)
		kind = KIND_SEND;
	f->total_retrans = total_retrans;
	TWIN(sample)(f, tp, &g, kind, PHASE_TRANSMIT, 0, 0, LANE_QUEUE);
	return 0;
}

/*
 * The timestamp and the IPv4 identification that the header is about to get. Without them, segments alike in their
 * numbers (duplicate ACKs, what is sent again) could not be told apart in a capture.
 */
INLINE void TWIN(foretell_head)(struct tcp_sock *tp, struct segment *g)
{
	struct inet_sock *inet = &tp->inet_conn.icsk_inet;

	/* as tcp_established_options does; what a SYN offers depends on more than the socket */
	if (!(g->flags & TCPHDR_SYN) && READ_BITS(tp, rx_opt.tstamp_ok)) {
		u64 sent_ns = READ(tp->tcp_wstamp_ns), now_ns = READ(tp->tcp_clock_cache);
		g->tsval = (sent_ns > now_ns ? sent_ns : now_ns) / TSVAL_UNIT_NS(tp) + READ(tp->tsoffset);
		g->has |= HAS_TSVAL;
	}
	/* as ip_select_ident_segs does for a connected socket that does not allow fragments */
	const struct inet_connection_sock_af_ops *ops = READ(tp->inet_conn.icsk_af_ops);
	u8 pmtudisc = READ(inet->pmtudisc);

	/* IPv4, whatever the socket's family is */
	if (!ops || READ(ops->net_header_len) != 20)
		return;
	if (pmtudisc != IP_PMTUDISC_WANT && pmtudisc != IP_PMTUDISC_DO)
		return;
	g->ip_id = NEXT_IP_ID(inet);
	g->has |= HAS_IP_ID;
}

/* __tcp_transmit_skb: the segment before its header is built. */
INLINE int TWIN(on_transmit)(struct sock *sk, const struct sk_buff *skb, u32 rcv_nxt)
{
	const struct tcp_skb_cb *cb = (const struct tcp_skb_cb *)&skb->cb;
	struct tcp_sock *tp = TWIN(tcp_of)(sk);
	struct segment g = {};

	if (!tp)
		return 0;
	struct flow *f = TWIN(flow_of)(tp);

	if (!f)
		return 0;
	g.seq = PROBED(cb->seq);
	g.len = READ(skb->len);
	READ_TCP_FLAGS(&g.flags, cb);
	g.ack = g.flags & TCPHDR_ACK ? rcv_nxt : 0;
	g.has = HAS_SEGMENT;
	TWIN(foretell_head)(tp, &g);

	/* the counters are still without this segment; one that fails before it is counted never gets into them */
	u64 bytes_sent = READ(tp->bytes_sent);
	u32 segs_out = READ(tp->segs_out);
	u16 segs = PROBED(cb->tcp_gso_segs);

	if (f->transmitted && ((s64)(bytes_sent - f->bytes_sent) > 0 || (s32)(segs_out - f->segs_out) > 0))
		leave_hole(f);
	f->transmitted = 1;
	f->bytes_sent = bytes_sent + g.len;
	f->segs_out = segs_out + (segs ? segs : 1);
	f->total_retrans = READ(tp->total_retrans);
	TWIN(sample)(f, tp, &g, TWIN(transmit_kind)(tp, &g), PHASE_TRANSMIT, 0, 0, LANE_TRANSMIT);
	return 0;
}

/* tcp:tcp_retransmit_skb: the kernel's own word that it retransmitted, or failed to. */
INLINE int TWIN(on_retransmit)(struct sock *sk, const struct sk_buff *skb, s32 error)
{
	const struct tcp_skb_cb *cb = (const struct tcp_skb_cb *)&skb->cb;
	struct tcp_sock *tp = TWIN(tcp_of)(sk);
	struct segment g = {};

	if (!tp)
		return 0;
	struct flow *f = TWIN(flow_of)(tp);

	if (!f)
		return 0;
	g.seq = PROBED(cb->seq);
	READ_TCP_FLAGS(&g.flags, cb);
	g.len = PROBED(cb->end_seq) - g.seq - !!(g.flags & TCPHDR_SYN) - !!(g.flags & TCPHDR_FIN);
	g.ack = READ(tp->rcv_nxt);
	g.has = HAS_SEGMENT;
	TWIN(sample)(f, tp, &g, KIND_RETRANSMIT, PHASE_AFTER, 0, error, NO_LANE);
	return 0;
}

/* sock:inet_sock_set_state: before the state is written, so the new one is taken from the arguments. */
INLINE int TWIN(on_state)(struct sock *sk, int old_state, int new_state)
{
	u64 key = (u64)sk;

	/* the start of a connection: addresses are not yet there, and what this memory was before is over */
	if (new_state == TCP_SYN_SENT || new_state == TCP_SYN_RECV || new_state == TCP_LISTEN) {
		bpf_map_delete_elem(&flows, &key);
		return 0;
	}
	struct tcp_sock *tp = TWIN(tcp_of)(sk);

	if (!tp)
		return 0;
	/* a socket that never had a segment, or was never wanted, does not become a flow by being closed */
	struct flow *f = new_state == TCP_CLOSE ? bpf_map_lookup_elem(&flows, &key) : TWIN(flow_of)(tp);

	if (!f)
		return 0;
	struct segment g = {};

	if (old_state == TCP_SYN_SENT && new_state == TCP_ESTABLISHED) {
		/* tcp_finish_connect: its SYN-ACK has just set these two, and no other probe point sees it */
		g.seq = READ(tp->rcv_nxt) - 1;
		g.ack = READ(tp->snd_una);
		g.flags = TCPHDR_SYN | TCPHDR_ACK;
		g.has = HAS_SEGMENT;
		if (READ_BITS(tp, rx_opt.saw_tstamp)) {
			g.tsval = READ(tp->rx_opt.rcv_tsval);
			g.has |= HAS_TSVAL;
		}
	}
	if (new_state == TCP_ESTABLISHED || new_state == TCP_CLOSE)
		TWIN(announce)(f, tp, new_state);
	TWIN(sample)(f, tp, &g, KIND_STATE, PHASE_AFTER, new_state, 0, NO_LANE);
	return 0;
}

#undef TWIN
#undef READ
#undef READ_BITS
#undef DIRECT

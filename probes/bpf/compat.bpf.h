/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What differs between the kernels from 5.10 on, each with the change that made it: the one place that asks which
 * kernel it is on. The rest of the programs uses the names below, and must not know kernel versions.
 *
 * Differences that need no code, for CO-RE takes sizes and offsets from the loading kernel:
 *   4.20  sk_pacing_rate has 64 bits (76a9ebe811fb, "net: extend sk_pacing_rate to unsigned long")
 *   6.8   tcp_sock is regrouped (d5fed5addb2b, "tcp: reorganize tcp_sock fast path variables")
 *   any   icsk_ca_state, is_cwnd_limited, rate_app_limited, tcp_usec_ts move between words: bit fields are relocated
 */
#pragma once
#include "kernel.bpf.h"

/*
 * Settings that the loader writes, for what BTF does not tell.
 */

/* bpf_get_socket_cookie in tracing programs: since 5.12 (c5dbb89fc2ac, "bpf: Expose bpf_get_socket_cookie to tracing
 * programs") */
const volatile u32 cfg_cookie_helper = 0;

/*
 * Before 5.12 atomic operations return nothing (5ca419f2864a, "bpf: Add BPF_FETCH field / create atomic_fetch_add"),
 * and a program that has one is refused even if it never gets there: hence an object of its own. Without them a flow's
 * number is the time and place at which it was first seen, and its samples are counted under the lock of its socket,
 * which every probe point holds; only what waited for a neighbour's address left without it.
 */
#ifdef NO_ATOMIC_FETCH
#define NEXT_FLOW() (bpf_ktime_get_ns() << 12 | (bpf_get_smp_processor_id() & 0xfff))
#define NEXT_SERIAL(f) (++(f)->serial)
#else
u64 last_flow = 0;
#define NEXT_FLOW() (__sync_fetch_and_add(&last_flow, 1) + 1)
#define NEXT_SERIAL(f) (__sync_fetch_and_add(&(f)->serial, 1) + 1)
#endif

/*
 * Since 6.15 the locks of ring and table are resilient (a650d38915c1, "bpf: Convert ringbuf map to rqspinlock";
 * 4fa8d68aa53e, "bpf: Convert hashtab.c to rqspinlock"): who waits for one is refused after 250 to 500 ms, or at once
 * where the kernel suspects a deadlock. None is possible here: the holder never waits, at worst its virtual processor
 * is not running. So the lock is asked for again, as older kernels do without end, but only so often.
 */
#define LOCK_ATTEMPTS 8

/* Resolution of the timestamps that a socket sends: microseconds are possible since ≈6.7 (614e8316aa4c, "tcp: add
 * support for usec resolution in TCP TS values"). */
#define TSVAL_UNIT_NS(tp) (field_exists((tp)->tcp_usec_ts) && READ_BITS(tp, tcp_usec_ts) ? 1000 : 1000000)

/*
 * The next IPv4 identification: atomic_t since ≈6.6 (f866fbc842de, "ipv4: fix data-races around inet->inet_id"). Packets
 * that may be cut into fragments take theirs from elsewhere before 5.17; it is not foretold for them on any kernel.
 */
struct inet_sock___plain {
	u16 inet_id;
} KERNEL_TYPE;

struct inet_sock___atomic {
	struct {
		s32 counter;
	} inet_id;
} KERNEL_TYPE;

#define NEXT_IP_ID(inet)                                                                \
	(field_exists(((struct inet_sock___atomic *)(inet))->inet_id.counter) ?         \
		 (u16)READ(((struct inet_sock___atomic *)(inet))->inet_id.counter) :    \
		 READ(((struct inet_sock___plain *)(inet))->inet_id))

/* Who brings a congestion control: nothing where it is built in, or where the kernel has no modules at all. */
#define READ_OWNER(into, ops)                                                                      \
	do {                                                                                       \
		if (field_exists(((struct module *)NULL)->name)) {                                 \
			const struct module *owner_ = READ((ops)->owner);                          \
			if (owner_)                                                                \
				bpf_probe_read_kernel(into, sizeof(into), &owner_->name);          \
		}                                                                                  \
	} while (0)

/* The flags of a segment that TCP owns: 16 bits since ≈6.15 (2c2f08d31d2f, "tcp: extend TCP flags to allow AE bit/ACE
 * field"), eight before. */
#define READ_TCP_FLAGS(flags, cb) \
	bpf_probe_read_kernel(flags, field_size((cb)->tcp_flags) == 1 ? 1 : 2, &(cb)->tcp_flags)

/* Why an skb is freed: the values moved when SKB_CONSUMED came before them with ≈6.3; the loading kernel's own is
 * taken. */
enum skb_drop_reason {
	SKB_DROP_REASON_NOT_SPECIFIED = 2,
};
#define DROP_NOT_SPECIFIED enum_value(enum skb_drop_reason, SKB_DROP_REASON_NOT_SPECIFIED)

/*
 * Arguments that tracepoints were given later. A program that reads one more than the kernel's tracepoint has does not
 * load; the loader then takes the next way of its table.
 */

/* skb:kfree_skb has had a reason since 5.17 (c504e5c2f964, "net: skb: introduce kfree_skb_reason()") and names the
 * socket since ≈6.11 (c53795d48ee8, "net: add rx_sk to trace_kfree_skb"). */
#define KFREE_SKB_REASON(ctx) ((ctx)[2])
#define KFREE_SKB_SOCKET(ctx) ((struct sock *)(ctx)[3])

/* tcp:tcp_retransmit_skb fires for failed retransmissions too, and has their error, since 6.17 (ad892e912b84, "tcp:
 * trace retransmit failures in tcp_retransmit_skb"). */
#define TCP_RETRANSMIT_SKB_ERROR(ctx) ((ctx)[2])

/*
 * The socket of an skb, in a program whose pointers the verifier knows; NULL where it is not full, or cannot be had.
 * Since ≈6.3 the verifier holds skb->sk for a pointer under RCU, which no helper takes (6fcd486b3a0a, "bpf: Refactor
 * RCU enforcement in the verifier"). The socket behind it points back with one that they do take; only a socket that
 * its application has closed has none.
 */
INLINE struct sock *trusted_socket(struct sock *sk)
{
	struct socket *socket = sk->sk_socket;

	if (!socket)
		return NULL;
	struct sock *same = socket->sk;
	u64 address = (u64)same;

	/* equal pointers, but not to the verifier: clang must not know, or it passes sk */
	asm volatile("" : "+r"(address));
	return address == (u64)sk ? same : NULL;
}

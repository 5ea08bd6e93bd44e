/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The kernel's types, as far as they are read. Only names count: CO-RE takes offsets and sizes from the BTF of the
 * kernel that loads the programs. What differs between kernels stands in compat.bpf.h.
 */
#pragma once
#include "bpf.bpf.h"

enum {
	AF_INET = 2,
	AF_INET6 = 10,
	IPPROTO_TCP = 6,
	SOCK_STREAM = 1,
};

enum tcp_state {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_SYN_RECV = 3,
	TCP_TIME_WAIT = 6,
	TCP_CLOSE = 7,
	TCP_LISTEN = 10,
	TCP_NEW_SYN_RECV = 12,
};

enum {
	TCPHDR_FIN = 0x01,
	TCPHDR_SYN = 0x02,
	TCPHDR_ACK = 0x10,
};

struct in6_addr {
	u8 bytes[16];
};

struct ns_common {
	u32 inum;
} KERNEL_TYPE;

struct net {
	struct ns_common ns;
} KERNEL_TYPE;

typedef struct {
	struct net *net;
} KERNEL_TYPE possible_net_t;

struct sock_common {
	u32 skc_daddr;
	u32 skc_rcv_saddr;
	u32 skc_portpair;
	u16 skc_dport;
	u16 skc_num;
	u16 skc_family;
	volatile u8 skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	struct {
		s64 counter;
	} skc_cookie;
} KERNEL_TYPE;

struct sock;

struct socket {
	struct sock *sk;
} KERNEL_TYPE;

struct sock {
	struct sock_common __sk_common;
	struct socket *sk_socket;
	u16 sk_type;
	u16 sk_protocol;
	u32 sk_mark;
	unsigned long sk_pacing_rate;
} KERNEL_TYPE;

enum {
	IP_PMTUDISC_WANT = 1,
	IP_PMTUDISC_DO = 2,
};

struct inet_sock {
	struct sock sk;
	u8 pmtudisc;
} KERNEL_TYPE;

struct inet_connection_sock_af_ops {
	u16 net_header_len;
} KERNEL_TYPE;

struct module {
	char name[56];
} KERNEL_TYPE;

struct tcp_congestion_ops {
	char name[16];
	struct module *owner;
} KERNEL_TYPE;

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	u32 icsk_rto;
	const struct tcp_congestion_ops *icsk_ca_ops;
	const struct inet_connection_sock_af_ops *icsk_af_ops;
	u8 icsk_ca_state : 5;
	u8 icsk_ca_initialized : 1;
	u8 icsk_retransmits;
	/* the congestion control's own: struct bictcp, bbr, dctcp, … */
	u64 icsk_ca_priv[13];
} KERNEL_TYPE;

struct minmax_sample {
	u32 t;
	u32 v;
} KERNEL_TYPE;

struct minmax {
	struct minmax_sample s[3];
} KERNEL_TYPE;

struct tcp_options_received {
	u32 rcv_tsval;
	u16 saw_tstamp : 1;
	u16 tstamp_ok : 1;
	u16 wscale_ok : 1;
	u16 snd_wscale : 4;
	u16 rcv_wscale : 4;
} KERNEL_TYPE;

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	u64 bytes_sent;
	u64 bytes_acked;
	u64 bytes_retrans;
	u64 bytes_received;
	u64 tcp_wstamp_ns;
	u64 tcp_clock_cache;
	u32 tsoffset;
	u32 snd_nxt;
	u32 snd_una;
	u32 write_seq;
	u32 snd_cwnd;
	u32 snd_ssthresh;
	u32 snd_wnd;
	u32 rcv_nxt;
	u32 rcv_wnd;
	u32 srtt_us;
	u32 mdev_us;
	u32 rttvar_us;
	u32 mss_cache;
	u32 packets_out;
	u32 retrans_out;
	u32 lost_out;
	u32 sacked_out;
	u32 reordering;
	u32 delivered;
	u32 lost;
	u32 segs_out;
	u32 total_retrans;
	u32 rate_delivered;
	u32 rate_interval_us;
	struct minmax rtt_min;
	struct tcp_options_received rx_opt;
	u8 is_cwnd_limited : 1;
	u8 rate_app_limited : 1;
	u8 tcp_usec_ts : 1;
} KERNEL_TYPE;

struct sk_buff {
	struct sock *sk;
	u32 len;
	u16 transport_header;
	u16 network_header;
	u8 *head;
	u8 *data;
	char cb[48];
} KERNEL_TYPE;

/* What TCP keeps in sk_buff.cb while it owns the segment. */
struct tcp_skb_cb {
	u32 seq;
	u32 end_seq;
	u16 tcp_gso_segs;
	u16 tcp_flags;
	u32 ack_seq;
} KERNEL_TYPE;

#if defined(__TARGET_ARCH_x86_64)
struct pt_regs {
	unsigned long di, si, dx, cx, r8, sp;
} KERNEL_TYPE;
#define ARG1(regs) ((regs)->di)
#define ARG2(regs) ((regs)->si)
#define ARG5(regs) ((regs)->r8)
/* the return has taken its address off the stack */
#define STACK_AT_ENTRY(regs) ((regs)->sp)
#define STACK_AT_RETURN(regs) ((regs)->sp - sizeof(u64))
#elif defined(__TARGET_ARCH_aarch64)
struct user_pt_regs {
	u64 regs[31];
	u64 sp;
} KERNEL_TYPE;
#define ARG1(ctx) (((const struct user_pt_regs *)(ctx))->regs[0])
#define ARG2(ctx) (((const struct user_pt_regs *)(ctx))->regs[1])
#define ARG5(ctx) (((const struct user_pt_regs *)(ctx))->regs[4])
#define STACK_AT_ENTRY(ctx) (((const struct user_pt_regs *)(ctx))->sp)
#define STACK_AT_RETURN(ctx) STACK_AT_ENTRY(ctx)
struct pt_regs;
#else
#error "no register names for this architecture: add them here"
#endif

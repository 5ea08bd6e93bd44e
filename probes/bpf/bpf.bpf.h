/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The part of the BPF world that this project uses: types, sections, helper numbers, CO-RE builtins.
 * Numbers are the kernel's ABI (include/uapi/linux/bpf.h); nothing here knows TCP.
 */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed int s32;
typedef signed long long s64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define KERNEL_TYPE __attribute__((preserve_access_index))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define NULL ((void *)0)
/* What the compiler must neither move across nor keep in a register. */
#define barrier() asm volatile("" ::: "memory")
#define SHARED(x) (*(volatile __typeof__(x) *)&(x))

/* Map definition in BTF: a number is the size of an array type, a type is a pointer to it. */
#define MAP_UINT(name, value) int(*name)[value]
#define MAP_TYPE(name, type) type *name

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum {
	BPF_NOEXIST = 1,
	BPF_F_MMAPABLE = 1 << 10,
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
};

/* What bpf_ringbuf_query tells of a ring. */
enum {
	BPF_RB_AVAIL_DATA = 0,
	BPF_RB_RING_SIZE = 1,
};

/* Before each record of a ring (BPF_RINGBUF_HDR_SZ). */
#define RING_HEADER_BYTES 8

#define E2BIG 7

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;
static u64 (*const bpf_get_socket_cookie)(void *ctx) = (void *)46;
static long (*const bpf_probe_read_kernel)(void *dst, u32 size, const void *unsafe_ptr) = (void *)113;
static u64 (*const bpf_jiffies64)(void) = (void *)118;
static void *(*const bpf_ringbuf_reserve)(void *ringbuf, u64 size, u64 flags) = (void *)131;
static void (*const bpf_ringbuf_submit)(void *data, u64 flags) = (void *)132;
static u64 (*const bpf_ringbuf_query)(void *ringbuf, u64 flags) = (void *)134;
static struct tcp_sock *(*const bpf_skc_to_tcp_sock)(void *sk) = (void *)137;

/* Relocation kinds of __builtin_preserve_field_info (enum bpf_core_relo_kind). */
enum {
	FIELD_BYTE_OFFSET = 0,
	FIELD_BYTE_SIZE = 1,
	FIELD_EXISTS = 2,
	FIELD_LSHIFT_U64 = 4,
	FIELD_RSHIFT_U64 = 5,
};

/* The value that an enumerator has in the loading kernel. */
#define enum_value(type, name) __builtin_preserve_enum_value(*(type *)name, 1)

#define field_exists(access) __builtin_preserve_field_info(access, FIELD_EXISTS)
#define field_size(access) __builtin_preserve_field_info(access, FIELD_BYTE_SIZE)

/* A kernel value through bpf_probe_read_kernel: for programs whose pointers the verifier does not know. */
#define PROBED(access)                                                          \
	({                                                                      \
		__typeof__(access) value_;                                      \
		bpf_probe_read_kernel((void *)&value_, sizeof(value_), (const void *)&(access));      \
		value_;                                                         \
	})

/* A bit field: its bytes, then the two shifts that isolate it, all three relocated. */
#define BITS_FROM(bytes, p, member)                                                 \
	((bytes) << __builtin_preserve_field_info((p)->member, FIELD_LSHIFT_U64) >> \
	 __builtin_preserve_field_info((p)->member, FIELD_RSHIFT_U64))

#define BITS_ADDRESS(p, member)                                                                              \
	({                                                                                                   \
		const void *at_ = (const void *)(p) + __builtin_preserve_field_info((p)->member, FIELD_BYTE_OFFSET); \
		/* keeps clang from folding the offset into a load that the verifier would see unrelocated */ \
		asm volatile("" : "+r"(at_));                                                               \
		at_;                                                                                         \
	})

#define BITS_DIRECT(p, member)                                                  \
	({                                                                      \
		const void *at__ = BITS_ADDRESS(p, member);                     \
		u64 bytes_ = 0;                                                 \
		switch (__builtin_preserve_field_info((p)->member, FIELD_BYTE_SIZE)) { \
		case 1:                                                         \
			bytes_ = *(const u8 *)at__;                             \
			break;                                                  \
		case 2:                                                         \
			bytes_ = *(const u16 *)at__;                            \
			break;                                                  \
		case 4:                                                         \
			bytes_ = *(const u32 *)at__;                            \
			break;                                                  \
		case 8:                                                         \
			bytes_ = *(const u64 *)at__;                            \
			break;                                                  \
		}                                                               \
		BITS_FROM(bytes_, p, member);                                   \
	})

#define BITS_PROBED(p, member)                                                                     \
	({                                                                                         \
		u64 bytes_ = 0;                                                                    \
		bpf_probe_read_kernel(&bytes_, __builtin_preserve_field_info((p)->member, FIELD_BYTE_SIZE), \
				      BITS_ADDRESS(p, member));                                    \
		BITS_FROM(bytes_, p, member);                                                      \
	})

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "only little-endian BPF targets are supported"
#endif
#define from_be16(x) __builtin_bswap16(x)
#define from_be32(x) __builtin_bswap32(x)

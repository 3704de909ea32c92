/*
 * The few inline functions, macros and thread-local variables of DPDK that Rust cannot reach by
 * itself, one plain function each. Everything else is called directly through the bindings.
 */
#ifndef SLUICEGATE_SHIM_H
#define SLUICEGATE_SHIM_H

#include <stdint.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_eth_ring.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_thash.h>
#include <rte_version.h>
#ifdef SHIM_RTE_HASH
#include <rte_hash.h>
#endif

/* Function-like macros (RTE_BIT64), given a value that bindgen can read. */
static const uint64_t shim_rx_offload_scatter = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t shim_tx_offload_multi_segs = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t shim_tx_offload_fast_free = RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
static const uint64_t shim_rx_offload_ipv4_checksum = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t shim_rx_offload_tcp_checksum = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t shim_rx_offload_udp_checksum = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t shim_rx_ip_checksum_bad = RTE_MBUF_F_RX_IP_CKSUM_BAD;
static const uint64_t shim_rx_ip_checksum_good = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
static const uint64_t shim_rx_l4_checksum_bad = RTE_MBUF_F_RX_L4_CKSUM_BAD;
static const uint64_t shim_rx_l4_checksum_good = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t shim_rss_ipv4 = RTE_ETH_RSS_IPV4;
static const uint64_t shim_rss_ipv4_tcp = RTE_ETH_RSS_NONFRAG_IPV4_TCP;
static const uint64_t shim_rss_ipv4_udp = RTE_ETH_RSS_NONFRAG_IPV4_UDP;
static const uint64_t shim_rss_ipv4_other = RTE_ETH_RSS_NONFRAG_IPV4_OTHER;
static const uint64_t shim_rss_ipv4_fragments = RTE_ETH_RSS_FRAG_IPV4;
static const uint64_t shim_rss_ipv6 = RTE_ETH_RSS_IPV6;
static const uint64_t shim_rss_ipv6_tcp = RTE_ETH_RSS_NONFRAG_IPV6_TCP;
static const uint64_t shim_rss_ipv6_udp = RTE_ETH_RSS_NONFRAG_IPV6_UDP;
static const uint64_t shim_rss_ipv6_other = RTE_ETH_RSS_NONFRAG_IPV6_OTHER;
static const uint64_t shim_rss_ipv6_fragments = RTE_ETH_RSS_FRAG_IPV6;
static const uint64_t shim_rss_ip_tcp_udp =
	RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;
static const uint32_t shim_mq_rx_rss = RTE_ETH_MQ_RX_RSS;
static const uint32_t shim_invalid_mbuf_port = RTE_MBUF_PORT_INVALID;

/* The calling thread's rte_errno. */
int shim_errno(void);
/* The calling thread's lcore id, or UINT32_MAX on a thread that EAL did not start. */
uint32_t shim_lcore_id(void);

uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);

struct rte_mbuf *shim_mbuf_alloc(struct rte_mempool *pool);
int shim_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count);
void shim_mbuf_free(struct rte_mbuf *mbuf);
uint32_t shim_pool_size(const struct rte_mempool *pool);
uint16_t shim_pool_data_room(struct rte_mempool *pool);

/* Objects moved, 0 to count. */
unsigned int shim_ring_push(struct rte_ring *ring, struct rte_mbuf **mbufs, unsigned int count);
unsigned int shim_ring_pop(struct rte_ring *ring, struct rte_mbuf **mbufs, unsigned int count);

/* DPDK's Toeplitz hash of words in host order; the key has 4 * (words + 1) bytes at least. */
uint32_t shim_toeplitz(uint32_t *input, uint32_t words, const uint8_t *key);

/*
 * The names that libraries and drivers registered their logs under, a line each: the first size
 * bytes; their number.
 */
size_t shim_log_names(char *buffer, size_t size);
/* Sends DPDK's log to memory; 0, or -1 if there is no memory. */
int shim_log_hold(void);
/* Copies the first bytes that were logged, at most size; their number. */
size_t shim_log_held(char *buffer, size_t size);
/* Sends DPDK's log where it went before. */
void shim_log_release(void);

#endif

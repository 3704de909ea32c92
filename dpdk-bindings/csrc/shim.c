#define _GNU_SOURCE
#include "shim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The Rust side reads and writes these fields itself. */
_Static_assert(sizeof(struct rte_mbuf) == 128, "an mbuf header is two cache lines");
_Static_assert(sizeof(((struct rte_mbuf *)0)->data_len) == 2, "segment lengths are 16 bit");
_Static_assert(sizeof(((struct rte_mbuf *)0)->pkt_len) == 4, "packet lengths are 32 bit");
_Static_assert(sizeof(((struct rte_mbuf *)0)->nb_segs) == 2, "segment counts are 16 bit");
_Static_assert(offsetof(struct rte_mbuf, pool) < 64, "sending reads the first cache line alone");

int shim_errno(void)
{
	return rte_errno;
}

uint32_t shim_lcore_id(void)
{
	return rte_lcore_id();
}

uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, mbufs, count);
}

uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, mbufs, count);
}

struct rte_mbuf *shim_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

int shim_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, count);
}

void shim_mbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

uint32_t shim_pool_size(const struct rte_mempool *pool)
{
	return pool->size;
}

uint16_t shim_pool_data_room(struct rte_mempool *pool)
{
	return rte_pktmbuf_data_room_size(pool);
}

unsigned int shim_ring_push(struct rte_ring *ring, struct rte_mbuf **mbufs, unsigned int count)
{
	return rte_ring_enqueue_burst(ring, (void **)mbufs, count, NULL);
}

unsigned int shim_ring_pop(struct rte_ring *ring, struct rte_mbuf **mbufs, unsigned int count)
{
	return rte_ring_dequeue_burst(ring, (void **)mbufs, count, NULL);
}

uint32_t shim_toeplitz(uint32_t *input, uint32_t words, const uint8_t *key)
{
	return rte_softrss(input, words, key);
}

size_t shim_log_names(char *buffer, size_t size)
{
	char *text = NULL;
	size_t length = 0;
	FILE *memory = open_memstream(&text, &length);

	if (memory == NULL)
		return 0;
	rte_log_dump(memory);
	fclose(memory);
	if (length > size)
		length = size;
	memcpy(buffer, text, length);
	free(text);
	return length;
}

/* Never closed: a thread of EAL's may be writing to it at any time. */
static FILE *held;
static char *held_text;
static size_t held_length;

int shim_log_hold(void)
{
	if (held == NULL)
		held = open_memstream(&held_text, &held_length);
	return held == NULL ? -1 : rte_openlog_stream(held);
}

size_t shim_log_held(char *buffer, size_t size)
{
	size_t length = 0;

	if (held == NULL)
		return 0;
	flockfile(held);
	if (fflush_unlocked(held) == 0 && held_text != NULL) {
		length = held_length < size ? held_length : size;
		memcpy(buffer, held_text, length);
	}
	funlockfile(held);
	return length;
}

void shim_log_release(void)
{
	rte_openlog_stream(NULL);
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Of which pieces the HugeTLB pages of a guest_memfd consist, for tests that split
 * them.  On top of gmem_conversion.h:
 *
 *	gmem_pieces_init(&t, 2 * SZ_2M, GUEST_MEMFD_FLAG_HUGETLB_2M | GMEM_MMAP_PRIVATE);
 *	guest_fill(&t, 0, 512);
 *	to_shared(&t, 5, 3);
 *	expect_pieces(&t, 1, &(struct gmem_run) { 5, 3 }, 1);
 *	host_expect(&t, 5, 3);
 *	guest_expect(&t, 0, 512);
 *
 * Pages are of 4K.  What is filled has a value of its own in each page, PAGE_VAL().
 */
#ifndef SELFTEST_KVM_GMEM_PIECES_H
#define SELFTEST_KVM_GMEM_PIECES_H

#include <linux/falloc.h>

#include "gmem_conversion.h"
#include "hugetlb_ledger.h"

#define NR_ORDERS	(__builtin_ctzl(SZ_1G / PAGE_SIZE) + 1)
#define BLOCK_NR	(SZ_2M / PAGE_SIZE)
#define PAGE_VAL(pgoff)	(~(u64)(pgoff))

/* In seconds: a case zeroes gigabytes, perhaps on an emulated debug kernel. */
#define PIECES_TIMEOUT	300

/* What the vmemmap of a huge page may grow by for each page that is taken out. */
#define PIECES_BUDGET	SZ_64K

/* Folios by order. */
struct gmem_pieces {
	u64 nr[NR_ORDERS];
};

/* What fdinfo says, in bytes. */
struct gmem_info {
	u64 page_size, allocated, private, shared, vmemmap;
	struct gmem_pieces pieces;
};

static inline void read_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY);
	size_t used = 0;
	ssize_t r;

	TEST_ASSERT(fd >= 0, "Can't open %s: %s", path, strerror(errno));
	while ((r = read(fd, buf + used, size - 1 - used)) > 0)
		used += r;
	TEST_ASSERT(!r && used < size - 1, "Can't read all of %s", path);
	buf[used] = '\0';
	kvm_close(fd);
}

static inline const char *gmem_info_value(const char *text, const char *name)
{
	char key[32];
	const char *p;

	snprintf(key, sizeof(key), "gmem-%s:\t", name);
	p = strstr(text, key);
	TEST_ASSERT(p, "Expected '%s' in fdinfo", key);
	return p + strlen(key);
}

static inline u64 gmem_info_bytes(const char *text, const char *name)
{
	return strtoul(gmem_info_value(text, name), NULL, 10) * 1024;
}

static inline struct gmem_info gmem_info(int fd)
{
	struct gmem_info info = {};
	unsigned int order;
	char path[64], text[4096];
	const char *p;
	u64 nr;
	int n;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	read_file(path, text, sizeof(text));

	info.page_size = gmem_info_bytes(text, "page-size");
	info.allocated = gmem_info_bytes(text, "allocated");
	info.private = gmem_info_bytes(text, "private");
	info.shared = gmem_info_bytes(text, "shared");
	info.vmemmap = gmem_info_bytes(text, "vmemmap");

	p = gmem_info_value(text, "folios");
	for (; sscanf(p, "%u:%lu%n", &order, &nr, &n) == 2; p += n + strspn(p + n, " ")) {
		TEST_ASSERT(order < NR_ORDERS, "Expected no folio of order %u", order);
		info.pieces.nr[order] = nr;
	}
	TEST_ASSERT(*p == '\n', "Expected ORDER:COUNT pairs, found '%s'", p);
	return info;
}

static inline u64 nr_private(struct gmem_conversion *t)
{
	struct gmem_info info = gmem_info(t->fd);

	TEST_ASSERT(info.private + info.shared == t->size,
		    "Expected private and shared to be the whole file, are %lu and %lu",
		    info.private, info.shared);
	return info.private / PAGE_SIZE;
}

static inline void pieces_print(const struct gmem_pieces *pieces, char *buf, size_t size)
{
	size_t used = 0;
	int order;

	buf[0] = '\0';
	for (order = 0; order < NR_ORDERS && used < size; order++)
		if (pieces->nr[order])
			used += snprintf(buf + used, size - used, " %d:%lu", order,
					 pieces->nr[order]);
}

/* Add [@start, @end) as the largest naturally aligned pieces. */
static inline void pieces_add(struct gmem_pieces *pieces, u64 start, u64 end)
{
	int order;

	for (; start < end; start += BIT_ULL(order)) {
		order = 63 - __builtin_clzl(end - start);
		if (start && order > __builtin_ctzl(start))
			order = __builtin_ctzl(start);
		pieces->nr[order]++;
	}
}

struct gmem_run {
	u64 first, nr;
};

static inline void pieces_add_huge_page(struct gmem_pieces *pieces, u64 start, u64 end,
					const struct gmem_run *runs, int nr_runs)
{
	for (; nr_runs; runs++, nr_runs--) {
		u64 first = max(start, runs->first), last = min(end, runs->first + runs->nr);

		if (first >= last)
			continue;
		pieces_add(pieces, start, first);
		pieces->nr[0] += last - first;
		start = last;
	}
	pieces_add(pieces, start, end);
}

/*
 * The first @nr_huge pages of the file are allocated, and no others.  The @runs, in
 * ascending order, are single pages, and all else is as large as it can be.
 */
static inline void expect_pieces(struct gmem_conversion *t, int nr_huge,
				 const struct gmem_run *runs, int nr_runs)
{
	struct gmem_info info = gmem_info(t->fd);
	char wanted_str[512], is_str[512];
	u64 nr = info.page_size / PAGE_SIZE;
	struct gmem_pieces wanted = {};
	int i;

	for (i = 0; i < nr_huge; i++)
		pieces_add_huge_page(&wanted, i * nr, (i + 1) * nr, runs, nr_runs);

	pieces_print(&wanted, wanted_str, sizeof(wanted_str));
	pieces_print(&info.pieces, is_str, sizeof(is_str));
	TEST_ASSERT(!memcmp(&wanted, &info.pieces, sizeof(wanted)),
		    "Expected pieces%s, found%s", wanted_str, is_str);
	TEST_ASSERT(info.allocated == nr_huge * info.page_size,
		    "Expected %d huge pages, found %lu bytes", nr_huge, info.allocated);
}

static inline void expect_whole(struct gmem_conversion *t, int nr_huge)
{
	expect_pieces(t, nr_huge, NULL, 0);
}

/* An event that /proc/vmstat counts; the test is alone with huge pages that split. */
static inline u64 vm_event_count(const char *name)
{
	static char text[16384];
	char key[32];
	const char *p;

	read_file("/proc/vmstat", text, sizeof(text));
	snprintf(key, sizeof(key), "\n%s ", name);
	p = strstr(text, key);
	TEST_ASSERT(p, "Expected %s in /proc/vmstat", name);
	return strtoul(p + strlen(key), NULL, 10);
}

struct gmem_events {
	u64 split, merge, rejoin;
};

static inline struct gmem_events gmem_events(void)
{
	return (struct gmem_events) {
		.split = vm_event_count("htlb_split"),
		.merge = vm_event_count("htlb_merge"),
		.rejoin = vm_event_count("htlb_rejoin"),
	};
}

/* Since @events was read or this was called. */
static inline void expect_events(struct gmem_events *events, u64 split, u64 merge, u64 rejoin)
{
	struct gmem_events now = gmem_events();

	TEST_ASSERT(now.split - events->split == split &&
		    now.merge - events->merge == merge &&
		    now.rejoin - events->rejoin == rejoin,
		    "Expected %lu splits, %lu merges, %lu rejoins, counted %lu, %lu, %lu",
		    split, merge, rejoin, now.split - events->split,
		    now.merge - events->merge, now.rejoin - events->rejoin);
	*events = now;
}

/* What the guest does with [@first, @first + @nr), in the guest's copy only. */
static struct {
	u64 first, nr;
	bool fill;
} gmem_pieces_todo;

static inline void gmem_pieces_guest_code(void)
{
	for (;;) {
		u64 i = READ_ONCE(gmem_pieces_todo.first);
		u64 end = i + READ_ONCE(gmem_pieces_todo.nr);
		bool fill = READ_ONCE(gmem_pieces_todo.fill);

		for (; i < end; i++) {
			u64 *p = (u64 *)(GMEM_GPA + i * PAGE_SIZE), val = READ_ONCE(*p);

			if (fill)
				WRITE_ONCE(*p, PAGE_VAL(i));
			else
				__GUEST_ASSERT(val == PAGE_VAL(i), "Guest found 0x%lx in page %lu",
					       val, i);
		}
		GUEST_SYNC(0);
	}
}

static inline void gmem_pieces_init(struct gmem_conversion *t, size_t size, u64 flags)
{
	gmem_conversion_init(t, size, flags, gmem_pieces_guest_code);
}

static inline void guest_do(struct gmem_conversion *t, u64 first, u64 nr, bool fill)
{
	typeof(gmem_pieces_todo) todo = { first, nr, fill };

	write_guest_global(t->vm, gmem_pieces_todo, todo);
	guest_run(t->vcpu);
}

static inline void guest_fill(struct gmem_conversion *t, u64 first, u64 nr)
{
	guest_do(t, first, nr, true);
}

static inline void guest_expect(struct gmem_conversion *t, u64 first, u64 nr)
{
	guest_do(t, first, nr, false);
}

static inline void host_expect_page(struct gmem_conversion *t, u64 pgoff)
{
	u64 val = READ_ONCE(*(u64 *)(t->mem + pgoff * PAGE_SIZE));

	TEST_ASSERT(val == PAGE_VAL(pgoff), "Host found 0x%lx in page %lu", val, pgoff);
}

/* Of many pages the first and the last one, and some of those between. */
static inline void host_expect(struct gmem_conversion *t, u64 first, u64 nr)
{
	u64 i, step = 1 + nr / 256;

	for (i = first; i < first + nr; i += step)
		host_expect_page(t, i);
	host_expect_page(t, first + nr - 1);
}

/*
 * The pages that are in the pool are what they were: of zeroes for who gets them, whole,
 * and with @vmemmap bytes of struct pages each.
 */
static inline void expect_pool_as_new(size_t page_size, u64 flag, u64 vmemmap)
{
	u64 i, val, nr = hugetlb_pool_available(page_size);
	struct gmem_conversion t;

	gmem_pieces_init(&t, nr * page_size, flag | GMEM_MMAP_SHARED);
	kvm_fallocate(t.fd, FALLOC_FL_KEEP_SIZE, 0, t.size);
	expect_whole(&t, nr);
	TEST_ASSERT(gmem_info(t.fd).vmemmap == nr * vmemmap,
		    "Expected %lu bytes of vmemmap for each of %lu pages, found %lu for all",
		    vmemmap, nr, gmem_info(t.fd).vmemmap);

	for (i = 0; i < t.size; i += page_size / 8) {
		val = READ_ONCE(*(u64 *)(t.mem + i));
		TEST_ASSERT(!val, "Expected a new page to be zero, found 0x%lx", val);
	}
	gmem_conversion_free(&t);
}

/* Wait until the pool is as if the test held @held pages; see hugetlb_ledger_diff(). */
static inline const char *ledger_wait(const struct hugetlb_ledger *ledger, long held,
				      long allocated)
{
	struct timespec start;
	const char *diff;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while ((diff = hugetlb_ledger_diff(ledger, held, allocated)) &&
	       timespec_elapsed(start).tv_sec < GMEM_PATIENCE)
		usleep(10000);
	return diff;
}

#define EXPECT_BALANCE_SOON(ledger, held, allocated)				\
do {										\
	const char *__diff = ledger_wait(ledger, held, allocated);		\
										\
	EXPECT_EQ(NULL, __diff)							\
		TH_LOG("%s", __diff ?: "balanced");				\
} while (0)

#endif /* SELFTEST_KVM_GMEM_PIECES_H */

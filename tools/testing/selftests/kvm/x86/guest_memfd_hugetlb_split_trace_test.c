// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test that the tracepoints of guest_memfd and of HugeTLB pages that split tell the
 * life of such a page: allocated, converted, split, merged, and, if somebody held a
 * part of it longer than the file lasted, come home piece by piece.
 *
 * Each event is checked, with its values, and that there is no other one.
 */
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "gmem_pieces.h"
#include "gmem_test.h"
#include "kselftest_harness.h"

#define TRACEFS		"/sys/kernel/tracing"

#define TEST_TRACE(name)	TEST_F_TIMEOUT(gmem_trace, name, PIECES_TIMEOUT)

/* In milliseconds: what was to be traced has been, if all has been that was waited for. */
#define SILENCE		300

static const char * const events[] = {
	"guest_memfd/kvm_gmem_allocate",
	"guest_memfd/kvm_gmem_convert",
	"hugetlb_split/hugetlb_split",
	"hugetlb_split/hugetlb_merge",
	"hugetlb_split/hugetlb_piece_park",
	"hugetlb_split/hugetlb_piece_release",
	"hugetlb_split/hugetlb_rejoin",
};

/* An instance of its own, so that nobody else's trace is disturbed, nor disturbs. */
struct trace {
	char dir[128];
	FILE *pipe;
	char line[256];
};

FIXTURE(gmem_trace)
{
	struct hugetlb_ledger ledger;
	struct gmem_conversion t;
	struct trace trace;
	u64 ino, pfn;
};

FIXTURE_VARIANT(gmem_trace)
{
	size_t page_size;
	u64 flag;
};

FIXTURE_VARIANT_ADD(gmem_trace, 2M)
{
	.page_size = SZ_2M,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_2M,
};

FIXTURE_VARIANT_ADD(gmem_trace, 1G)
{
	.page_size = SZ_1G,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_1G,
};

/* Pages of 4K in a huge page, and the order of that. */
#define NR	(variant->page_size / PAGE_SIZE)
#define ORDER	__builtin_ctzl(NR)

static bool trace_enable(struct trace *trace, const char *event)
{
	char path[256];
	int fd, r;

	snprintf(path, sizeof(path), "%s/events/%s/enable", trace->dir, event);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return false;
	r = write(fd, "1", 1);
	kvm_close(fd);
	return r == 1;
}

static bool trace_open(struct trace *trace)
{
	char path[256];

	if (access(TRACEFS "/instances", F_OK))
		mount("trace", TRACEFS, "tracefs", 0, NULL);

	snprintf(trace->dir, sizeof(trace->dir), TRACEFS "/instances/guest_memfd-%d", getpid());
	if (mkdir(trace->dir, 0700))
		return false;

	snprintf(path, sizeof(path), "%s/trace_pipe", trace->dir);
	trace->pipe = fopen(path, "r");
	TEST_ASSERT(trace->pipe, "Can't open %s: %s", path, strerror(errno));
	fcntl(fileno(trace->pipe), F_SETFL, O_NONBLOCK);
	return true;
}

/* The next event as "NAME: VALUES", or NULL if there is none for so long. */
static char *trace_next(struct trace *trace, int msecs)
{
	size_t len;
	char *p;

	while (!fgets(trace->line, sizeof(trace->line), trace->pipe)) {
		if (msecs <= 0)
			return NULL;
		clearerr(trace->pipe);
		usleep(10000);
		msecs -= 10;
	}
	len = strlen(trace->line);
	TEST_ASSERT(trace->line[len - 1] == '\n', "Got part of a line: %s", trace->line);
	trace->line[len - 1] = '\0';

	/* The process, CPU and time come first. */
	p = strstr(trace->line, ": ");
	TEST_ASSERT(p, "Expected an event, found '%s'", trace->line);
	return p + 2;
}

static void __printf(2, 3) expect_trace(struct trace *trace, const char *fmt, ...)
{
	const char *is = trace_next(trace, GMEM_PATIENCE * 1000);
	char wanted[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(wanted, sizeof(wanted), fmt, args);
	va_end(args);
	TEST_ASSERT(is && !strcmp(is, wanted), "Expected '%s', found '%s'", wanted,
		    is ?: "nothing");
}

static void expect_silence(struct trace *trace)
{
	const char *is = trace_next(trace, SILENCE);

	TEST_ASSERT(!is, "Expected no more events, found '%s'", is);
}

FIXTURE_SETUP(gmem_trace)
{
	int i;

	if (!hugetlb_pool_exists(variant->page_size) ||
	    hugetlb_pool_grow(variant->page_size, 1) < 1)
		SKIP(return, "The pool hasn't got a page of %zu bytes", variant->page_size);

	hugetlb_ledger_open(&self->ledger, variant->page_size);
	if (!trace_open(&self->trace))
		SKIP(return, "No tracing here");
	for (i = 0; i < ARRAY_SIZE(events); i++)
		ASSERT_TRUE(trace_enable(&self->trace, events[i]))
			TH_LOG("Can't enable %s", events[i]);
}

FIXTURE_TEARDOWN_PARENT(gmem_trace)
{
	EXPECT_BALANCE_SOON(&self->ledger, 0, 0);
	hugetlb_ledger_close(&self->ledger);
	EXPECT_EQ(0, rmdir(self->trace.dir));
}

/* Test bodies know self and variant; so do these.  The file has one huge page. */
#define open_file(flags)							\
do {										\
	struct stat st;								\
										\
	gmem_pieces_init(&self->t, variant->page_size, variant->flag | (flags)); \
	ASSERT_EQ(0, fstat(self->t.fd, &st));					\
	self->ino = st.st_ino;							\
	guest_fill(&self->t, 0, NR);						\
	self->pfn = expect_allocation(&self->trace, self->ino, ORDER);		\
} while (0)

#define EXPECT_CONVERSION(start, end, to, result)				\
	expect_trace(&self->trace,						\
		     "kvm_gmem_convert: ino=%lu start=0x%lx end=0x%lx to=%s result=%d", \
		     self->ino, (u64)(start), (u64)(end), to, result)
#define EXPECT_SPLIT(start, end)						\
	expect_trace(&self->trace, "hugetlb_split: pfn=0x%lx nr=%lu start=%lu end=%lu", \
		     self->pfn, (u64)NR, (u64)(start), (u64)(end))
#define EXPECT_PIECE(event, pgoff, order)					\
	expect_trace(&self->trace, event ": pfn=0x%lx order=%u",		\
		     self->pfn + (pgoff), (unsigned int)(order))

/* Returns where the huge page is. */
static u64 expect_allocation(struct trace *trace, u64 ino, unsigned int order)
{
	const char *is = trace_next(trace, GMEM_PATIENCE * 1000);
	u64 found_ino, pfn;
	unsigned int found_order;

	TEST_ASSERT(is && sscanf(is, "kvm_gmem_allocate: ino=%lu index=0x0 pfn=0x%lx order=%u",
				 &found_ino, &pfn, &found_order) == 3 &&
		    found_ino == ino && found_order == order && pfn % BIT_ULL(order) == 0,
		    "Expected an allocation of order %u for %lu, found '%s'", order, ino,
		    is ?: "nothing");
	return pfn;
}

TEST_TRACE(conversion)
{
	struct gmem_conversion *t = &self->t;
	u64 error_offset;
	int pin;

	if (!host_can_pin())
		SKIP(return, "Can't pin memory for lack of gup_test");

	open_file(GMEM_MMAP_PRIVATE);
	to_shared(t, 5, 1);
	EXPECT_SPLIT(5, 6);
	EXPECT_CONVERSION(5, 6, "shared", 0);

	/* Neither access is anything to tell of, nor is a refused conversion a split. */
	host_expect(t, 5, 1);
	guest_expect(t, 0, NR);
	pin = host_pin(t, 5, 1);
	EXPECT_EQ(-1, __gmem_set_private(t->fd, 0, t->size, &error_offset));
	EXPECT_CONVERSION(0, NR, "private", -EAGAIN);
	host_unpin(pin);

	to_private(t, 5, 1);
	EXPECT_PIECE("hugetlb_merge", 0, ORDER);
	EXPECT_CONVERSION(5, 6, "private", 0);

	/* There is nothing to do, which is a success. */
	to_private(t, NR - 2, 2);
	EXPECT_CONVERSION(NR - 2, NR, "private", 0);
	expect_silence(&self->trace);

	/* A page that is whole is no piece, and comes home like any other. */
	gmem_conversion_free(t);
	expect_silence(&self->trace);
}

#define EXPECT_LEAF_SPLIT(level)							\
	expect_leaf_split(&self->trace, GMEM_GPA / PAGE_SIZE, level)

/* The leaf that began at @gfn has been replaced by some of the next smaller size. */
static void expect_leaf_split(struct trace *trace, u64 gfn, int level)
{
	const char *is = trace_next(trace, GMEM_PATIENCE * 1000);
	u64 found_gfn, spte;
	int found_level;

	TEST_ASSERT(is && sscanf(is, "kvm_mmu_split_huge_page: gfn %lx spte %lx level %d errno 0",
				 &found_gfn, &spte, &found_level) == 3 &&
		    found_gfn == gfn && found_level == level,
		    "Expected a split of the leaf of level %d for 0x%lx, found '%s'", level, gfn,
		    is ?: "nothing");
}

/* KVM splits a leaf of each size around what is converted, and none that is small. */
TEST_TRACE(leaves)
{
	struct gmem_conversion *t = &self->t;

	open_file(GMEM_MMAP_PRIVATE);
	ASSERT_TRUE(trace_enable(&self->trace, "kvmmmu/kvm_mmu_split_huge_page"));

	to_shared(t, 5, 1);
	EXPECT_SPLIT(5, 6);
	if (variant->page_size == SZ_1G)
		EXPECT_LEAF_SPLIT(PG_LEVEL_1G);
	EXPECT_LEAF_SPLIT(PG_LEVEL_2M);
	EXPECT_CONVERSION(5, 6, "shared", 0);

	to_shared(t, 4, 1);
	EXPECT_CONVERSION(4, 5, "shared", 0);
	expect_silence(&self->trace);

	to_private(t, 4, 2);
	EXPECT_PIECE("hugetlb_merge", 0, ORDER);
	EXPECT_CONVERSION(4, 6, "private", 0);
	guest_expect(t, 0, NR);

	/* A leaf all of which is converted isn't split, in contrast to the one around it. */
	to_shared(t, 0, BLOCK_NR);
	EXPECT_SPLIT(0, BLOCK_NR);
	if (variant->page_size == SZ_1G)
		EXPECT_LEAF_SPLIT(PG_LEVEL_1G);
	EXPECT_CONVERSION(0, BLOCK_NR, "shared", 0);
	expect_silence(&self->trace);
}

TEST_TRACE(touch_and_punch)
{
	struct gmem_conversion *t = &self->t;
	const u64 first = NR - BLOCK_NR;

	open_file(GMEM_MMAP_SHARED);
	host_expect(t, NR - 1, 1);
	EXPECT_SPLIT(first, NR);
	host_expect(t, first, BLOCK_NR);
	expect_silence(&self->trace);

	kvm_fallocate(t->fd, PUNCH, 0, t->size);
	EXPECT_PIECE("hugetlb_merge", 0, ORDER);
	expect_silence(&self->trace);

	guest_fill(t, 0, 1);
	self->pfn = expect_allocation(&self->trace, self->ino, ORDER);
}

/* Read @nr events, of which the order isn't told, and return them line by line. */
static char *trace_collect(struct trace *trace, int nr)
{
	static char text[16384];
	size_t used = 0;
	const char *is;

	while (nr-- && (is = trace_next(trace, GMEM_PATIENCE * 1000)))
		used += snprintf(text + used, sizeof(text) - used, "%s\n", is);
	return text;
}

static void expect_piece_in(const char *text, const char *event, u64 pfn, unsigned int order)
{
	char line[128];

	snprintf(line, sizeof(line), "%s: pfn=0x%lx order=%u\n", event, pfn, order);
	TEST_ASSERT(strstr(text, line), "Expected '%s' among these events:\n%s", line, text);
}

#define PARK		"hugetlb_piece_park"
#define RELEASE		"hugetlb_piece_release"

TEST_TRACE(late_release)
{
	struct gmem_conversion *t = &self->t;
	unsigned int order;
	char *text;
	int pin;

	if (!host_can_pin())
		SKIP(return, "Can't pin memory for lack of gup_test");

	open_file(GMEM_MMAP_PRIVATE);
	to_shared(t, 0, 1);
	EXPECT_SPLIT(0, 1);
	EXPECT_CONVERSION(0, 1, "shared", 0);
	pin = host_pin(t, 0, 1);

	/* All pieces leave the file, and all but the one that is pinned come home. */
	gmem_conversion_free(t);
	text = trace_collect(&self->trace, 2 * (ORDER + 1) - 1);
	expect_piece_in(text, PARK, self->pfn, 0);
	for (order = 0; order < ORDER; order++) {
		expect_piece_in(text, PARK, self->pfn + BIT_ULL(order), order);
		expect_piece_in(text, RELEASE, self->pfn + BIT_ULL(order), order);
	}
	expect_silence(&self->trace);

	host_unpin(pin);
	EXPECT_PIECE(RELEASE, 0, 0);
	EXPECT_PIECE("hugetlb_rejoin", 0, ORDER);
	expect_silence(&self->trace);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());

	hugetlb_ledger_init();
	return test_harness_run(argc, argv);
}

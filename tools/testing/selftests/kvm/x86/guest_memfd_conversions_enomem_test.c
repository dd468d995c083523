// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test in-place conversion of guest_memfd's memory, and what comes before it, while
 * the kernel runs out of memory: each allocation fails once, and each time either
 * all has been done or nothing has.
 *
 * It takes a kernel with fault injection (CONFIG_FAILSLAB, CONFIG_FAIL_PAGE_ALLOC).
 */
#include "gmem_backing.h"
#include "gmem_conversion.h"
#include "kselftest_harness.h"
#include "kvm_util.h"
#include "test_util.h"

#define NR_PAGES	512
#define FILE_SIZE	(NR_PAGES * PAGE_SIZE)
#define FAIL_NTH	"/proc/thread-self/fail-nth"

/* Far more than any of the system calls makes. */
#define MAX_ALLOCATIONS	1000

static bool write_file(const char *path, const char *val)
{
	int fd = open(path, O_WRONLY);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, val, strlen(val)) == strlen(val);
	close(fd);
	return ok;
}

#define DEBUGFS		"/sys/kernel/debug/"

/*
 * By default, only allocations that can't wait fail, and each failure leaves a
 * stack trace on the console.
 */
static bool can_inject_faults(void)
{
	return write_file(DEBUGFS "failslab/ignore-gfp-wait", "N") &&
	       write_file(DEBUGFS "failslab/verbose", "0") &&
	       write_file(DEBUGFS "fail_page_alloc/ignore-gfp-wait", "N") &&
	       write_file(DEBUGFS "fail_page_alloc/min-order", "0") &&
	       write_file(DEBUGFS "fail_page_alloc/verbose", "0") &&
	       !access(FAIL_NTH, R_OK | W_OK);
}

/* The thread's own, and open all the time: opening it allocates memory. */
static int fail_nth_fd;

/* Let the thread's @nth allocation from here on fail. */
static void fail_nth(int nth)
{
	char val[16];
	int len = snprintf(val, sizeof(val), "%d", nth);

	TEST_ASSERT(pwrite(fail_nth_fd, val, len, 0) == len, "Can't write " FAIL_NTH);
}

/* Returns whether that has come to pass, and ends it. */
static bool has_failed(void)
{
	char val[16] = {};

	TEST_ASSERT(pread(fail_nth_fd, val, sizeof(val) - 1, 0) > 0, "Can't read " FAIL_NTH);
	fail_nth(0);
	return !atoi(val);
}

/* Every second page is private: the tree has as many entries as it can have. */
static void restore(struct gmem_conversion *t, u64 pgoff, u64 nr)
{
	u64 i;

	for (i = pgoff; i < pgoff + nr; i++) {
		if (i & 1)
			to_private(t, i, 1);
		else
			to_shared(t, i, 1);
	}
}

FIXTURE(gmem_enomem)
{
	struct gmem_conversion t;
};

FIXTURE_VARIANT(gmem_enomem)
{
	struct gmem_backing backing;
};

FIXTURE_VARIANT_ADD(gmem_enomem, 4K) { };
FIXTURE_VARIANT_ADD(gmem_enomem, 2M) { GMEM_2M };
FIXTURE_VARIANT_ADD(gmem_enomem, 1G) { GMEM_1G };
FIXTURE_VARIANT_ADD(gmem_enomem, 1G_middle) { GMEM_1G_MIDDLE };

FIXTURE_SETUP(gmem_enomem)
{
	const char *missing = gmem_backing_use(&variant->backing);

	if (missing)
		SKIP(return, "%s", missing);

	fail_nth_fd = open(FAIL_NTH, O_RDWR);
	ASSERT_LE(0, fail_nth_fd);

	gmem_conversion_init_filled(&self->t, FILE_SIZE);
	restore(&self->t, 0, NR_PAGES);
}

FIXTURE_TEARDOWN(gmem_enomem)
{
	gmem_backing_finish(&self->t);
	kvm_close(fail_nth_fd);
}

static void expect_page(struct gmem_conversion *t, u64 pgoff, bool private)
{
	if (private)
		expect_private(t, pgoff, VAL(pgoff), VAL(pgoff));
	else
		expect_shared(t, pgoff, VAL(pgoff), VAL(pgoff));
}

/*
 * Returns how many allocations have failed, with ENOMEM, before none was left to
 * fail.  Some that fail are made in another way.
 */
static int convert_in_the_end(struct gmem_conversion *t, u64 pgoff, u64 nr, bool private)
{
	u64 attributes = private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0, error_offset;
	int nth, r, err, nr_failed = 0;
	bool failed;

	for (nth = 1; nth < MAX_ALLOCATIONS; nth++) {
		fail_nth(nth);
		r = __gmem_set_attributes(t->fd, gmem_offset(t, pgoff), nr * PAGE_SIZE,
					  attributes, &error_offset);
		err = errno;
		failed = has_failed();
		if (!r && !failed)
			return nr_failed;
		if (!r) {
			restore(t, pgoff, nr);
			continue;
		}

		TEST_ASSERT(failed && err == ENOMEM, "Expected ENOMEM, got %s (%s)",
			    strerror(err), failed ? "injected" : "by itself");
		TEST_ASSERT_EQ(error_offset, gmem_offset(t, pgoff));
		expect_page(t, pgoff, pgoff & 1);
		expect_page(t, pgoff + nr - 1, (pgoff + nr - 1) & 1);
		nr_failed++;
	}

	TEST_FAIL("No success with %d allocations", MAX_ALLOCATIONS);
	return 0;
}

/* From single pages in the middle to nearly everything. */
static int convert_all_sizes(struct gmem_conversion *t, bool private)
{
	int nr, nr_failed = 0;

	for (nr = 2; nr <= NR_PAGES; nr *= 2) {
		u64 pgoff = (NR_PAGES - nr) / 2;

		nr_failed += convert_in_the_end(t, pgoff, nr, private);
		expect_page(t, pgoff, private);
		expect_page(t, pgoff + nr - 1, private);

		restore(t, pgoff, nr);
	}

	return nr_failed;
}

TEST_F_TIMEOUT(gmem_enomem, to_private, 120)
{
	EXPECT_LT(0, convert_all_sizes(&self->t, true));
}

TEST_F_TIMEOUT(gmem_enomem, to_shared, 120)
{
	EXPECT_LT(0, convert_all_sizes(&self->t, false));
}

/* As above, where all is private and whole, and is whole again after each failure. */
static int split_in_the_end(struct gmem_conversion *t, u64 pgoff, u64 nr)
{
	int nth, r, err, nr_failed = 0;
	u64 error_offset;
	bool failed;

	for (nth = 1; nth < MAX_ALLOCATIONS; nth++) {
		fail_nth(nth);
		r = __gmem_set_shared(t->fd, gmem_offset(t, pgoff), nr * PAGE_SIZE,
				      &error_offset);
		err = errno;
		failed = has_failed();
		if (!r && !failed)
			return nr_failed;
		if (!r) {
			to_private(t, pgoff, nr);
			continue;
		}

		TEST_ASSERT(failed && err == ENOMEM, "Expected ENOMEM, got %s (%s)",
			    strerror(err), failed ? "injected" : "by itself");
		TEST_ASSERT_EQ(error_offset, gmem_offset(t, pgoff));
		gmem_expect_whole(t);
		nr_failed++;
	}

	TEST_FAIL("No success with %d allocations", MAX_ALLOCATIONS);
	return 0;
}

TEST_F_TIMEOUT(gmem_enomem, to_shared_from_whole, 120)
{
	struct gmem_conversion *t = &self->t;
	int nr, nr_failed = 0;
	u64 pgoff;

	if (!gmem_is_huge())
		SKIP(return, "For huge pages only");

	for (nr = 1; nr < NR_PAGES; nr *= 2) {
		pgoff = (NR_PAGES - nr) / 2;
		gmem_make_all_private(t);
		gmem_expect_whole(t);
		expect_page(t, pgoff, true);

		nr_failed += split_in_the_end(t, pgoff, nr);
		expect_page(t, pgoff, false);
		expect_page(t, pgoff + nr - 1, false);
		expect_page(t, pgoff + nr, true);
	}
	EXPECT_LT(0, nr_failed);
}

/* What isn't there is not allocated, and the attributes need no memory then. */
TEST_F_TIMEOUT(gmem_enomem, nothing_to_do, 120)
{
	u64 error_offset;

	fail_nth(1);
	EXPECT_EQ(0, __gmem_set_private(self->t.fd, gmem_offset(&self->t, 1), PAGE_SIZE,
					&error_offset));
	EXPECT_FALSE(has_failed());
	EXPECT_EQ(GMEM_NO_ERROR_OFFSET, error_offset);
}

/* A leak would be kmemleak's to find. */
TEST_F_TIMEOUT(gmem_enomem, creation, 120)
{
	int nth, fd, nr_failed = 0;

	for (nth = 1; nth < MAX_ALLOCATIONS; nth++) {
		fail_nth(nth);
		fd = __vm_create_guest_memfd(self->t.vm, self->t.file_size,
					     GMEM_MMAP_SHARED | gmem_backing.flag);
		if (!has_failed())
			break;
		nr_failed += fd < 0;
		if (fd >= 0)
			kvm_close(fd);
	}

	ASSERT_LE(0, fd);
	kvm_close(fd);
	EXPECT_LT(0, nr_failed);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());
	__TEST_REQUIRE(can_inject_faults(), "This kernel can't inject faults");

	gmem_backing_init();
	return test_harness_run(argc, argv);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test in-place conversion of guest_memfd against the references that the kernel
 * takes to shared memory for I/O.  They block the conversion of just the pages
 * that they are to, and just as long as they last; see also
 * guest_memfd_conversions_io_test for those that last for a moment only.
 *
 * Each case has a process of its own, whose end releases what the case holds.
 */
#include <sys/uio.h>

#include "gmem_backing.h"
#include "gmem_conversion.h"
#include "gmem_pin.h"
#include "gmem_test.h"
#include "kselftest_harness.h"

#define NR_PAGES	8
#define ALL_PAGES	(BIT_ULL(NR_PAGES) - 1)

#define TEST_PIN(name)		TEST_F_TIMEOUT(gmem_pin, name, 180)
#define TEST_REFERENCE(name)	TEST_F_TIMEOUT(gmem_reference, name, 180)

static void expect_conversion(struct gmem_conversion *t, u64 pgoff, u64 nr)
{
	if (!nr)
		return;

	to_private(t, pgoff, nr);
	expect_pages(t, (BIT_ULL(nr) - 1) << pgoff);
	to_shared(t, pgoff, nr);
}

/* Pages [@first, @first + @nr) are in use, and no other ones. */
static void expect_busy_pages(struct gmem_conversion *t, u64 first, u64 nr)
{
	u64 pgoff, end = first + nr;

	expect_eagain(t, 0, NR_PAGES, first);
	expect_eagain(t, end - 1, NR_PAGES - end + 1, end - 1);
	expect_pages(t, 0);

	expect_conversion(t, 0, first);
	expect_conversion(t, end, NR_PAGES - end);
	for (pgoff = 0; pgoff < NR_PAGES; pgoff++) {
		if (pgoff >= first && pgoff < end)
			expect_eagain(t, pgoff, 1, pgoff);
		else
			expect_conversion(t, pgoff, 1);
	}
}

FIXTURE(gmem_pin)
{
	struct gmem_conversion t;
	struct pin pin;
};

FIXTURE_VARIANT(gmem_pin)
{
	const struct pin_ops *ops;
	struct gmem_backing backing;
};

#define IO_URING	.ops = &io_uring_ops
#define GUP_TEST	.ops = &gup_test_ops

FIXTURE_VARIANT_ADD(gmem_pin, io_uring) { IO_URING };
FIXTURE_VARIANT_ADD(gmem_pin, gup_test) { GUP_TEST };
FIXTURE_VARIANT_ADD(gmem_pin, io_uring_2M) { IO_URING, GMEM_2M };
FIXTURE_VARIANT_ADD(gmem_pin, gup_test_2M_border) { GUP_TEST, GMEM_2M_BORDER };
FIXTURE_VARIANT_ADD(gmem_pin, io_uring_1G) { IO_URING, GMEM_1G };
FIXTURE_VARIANT_ADD(gmem_pin, gup_test_1G) { GUP_TEST, GMEM_1G };
FIXTURE_VARIANT_ADD(gmem_pin, io_uring_1G_middle) { IO_URING, GMEM_1G_MIDDLE };
FIXTURE_VARIANT_ADD(gmem_pin, io_uring_2M_nohvo) { IO_URING, GMEM_2M_NOHVO };
FIXTURE_VARIANT_ADD(gmem_pin, gup_test_1G_nohvo) { GUP_TEST, GMEM_1G_NOHVO };

FIXTURE_SETUP(gmem_pin)
{
	const char *missing = gmem_backing_use(&variant->backing);

	if (missing)
		SKIP(return, "%s", missing);
	if (!variant->ops->open(&self->pin))
		SKIP(return, "Can't pin memory this way: %s", strerror(errno));

	gmem_conversion_init_filled(&self->t, OFFSET(NR_PAGES));
}

FIXTURE_TEARDOWN(gmem_pin)
{
	kvm_close(self->pin.fd);
	gmem_backing_finish(&self->t);
}

/* Punch all pages out as soon as whoever lets go of one allows it. */
static void wait_for_hole(struct gmem_conversion *t)
{
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (gmem_punch(t, 0, NR_PAGES)) {
		TEST_ASSERT(errno == EAGAIN &&
			    timespec_elapsed(start).tv_sec < GMEM_PATIENCE,
			    "Expected a hole by now, got %s", strerror(errno));
		usleep(10);
	}
}

/* Test bodies know self and variant; so do these. */
#define pin_pages(pgoff, nr)	\
	ASSERT_EQ(0, variant->ops->pin(&self->pin, self->t.mem + OFFSET(pgoff), OFFSET(nr)))
#define unpin_pages()		\
	ASSERT_EQ(0, variant->ops->unpin(&self->pin))
#define EXPECT_PINNED(val)	\
	EXPECT_EQ((val), variant->ops->peek(&self->pin))

TEST_PIN(one_page)
{
	u64 pgoff;

	for (pgoff = 0; pgoff < NR_PAGES; pgoff++) {
		pin_pages(pgoff, 1);
		expect_busy_pages(&self->t, pgoff, 1);
		unpin_pages();
		wait_for_conversion(&self->t, pgoff, 1);
		expect_pages(&self->t, ALL_PAGES);
		to_shared(&self->t, 0, NR_PAGES);
	}
}

TEST_PIN(several_pages)
{
	pin_pages(2, 3);
	expect_busy_pages(&self->t, 2, 3);
	expect_eagain(&self->t, 3, 2, 3);
	unpin_pages();
	wait_for_conversion(&self->t, 2, 3);
}

TEST_PIN(all_pages)
{
	pin_pages(0, NR_PAGES);
	expect_busy_pages(&self->t, 0, NR_PAGES);
	unpin_pages();
	wait_for_conversion(&self->t, 0, NR_PAGES);
}

/* A refusal takes no more than the mapping, which comes back. */
TEST_PIN(refusal_keeps_the_page)
{
	struct gmem_conversion *t = &self->t;

	pin_pages(2, 1);
	expect_eagain(t, 0, NR_PAGES, 2);
	EXPECT_PINNED(VAL(2));
	host_access(t, 2, VAL(2), 'a');
	EXPECT_PINNED('a');
	expect_eagain(t, 2, 1, 2);
	guest_access(t, 2, 'a', VAL(2));
	EXPECT_PINNED(VAL(2));
	expect_pages(t, 0);
	unpin_pages();
}

TEST_PIN(private_page)
{
	to_private(&self->t, 2, 1);
	EXPECT_ERRNO(EFAULT, variant->ops->pin(&self->pin, self->t.mem + OFFSET(2), PAGE_SIZE));
	EXPECT_ERRNO(EFAULT, variant->ops->pin(&self->pin, self->t.mem + OFFSET(1), 2 * PAGE_SIZE));

	/* And what could be pinned has been let go of. */
	wait_for_conversion(&self->t, 1, 1);
}

/* What is pinned is not the file's any more, which has a new page. */
TEST_PIN(punch_hole)
{
	struct gmem_conversion *t = &self->t;

	if (gmem_is_huge())
		SKIP(return, "A huge page with a pin stays: see punch_huge_page");

	pin_pages(2, 1);
	ASSERT_EQ(0, gmem_punch(t, 2, 1));
	to_private(t, 2, 1);
	to_shared(t, 2, 1);

	expect_shared(t, 2, 0, 'a');
	EXPECT_PINNED(VAL(2));
	to_private(t, 2, 1);
	expect_private(t, 2, 'a', 'b');
	EXPECT_PINNED(VAL(2));
	unpin_pages();
	expect_private(t, 2, 'b', 'c');
}

/* It stays in the file as a whole, until it can leave as a whole. */
TEST_PIN(punch_huge_page)
{
	struct gmem_conversion *t = &self->t;
	u64 i, private = BIT(3) | BIT(4);

	if (!gmem_is_huge())
		SKIP(return, "For huge pages only");

	to_private(t, 3, 2);
	pin_pages(2, 1);
	EXPECT_ERRNO(EAGAIN, gmem_punch(t, 0, NR_PAGES));
	EXPECT_ERRNO(EAGAIN, gmem_punch(t, 2, 1));
	EXPECT_EQ(gmem_nr_backing(t, 0, NR_PAGES), gmem_nr_allocated(t));
	EXPECT_PINNED(VAL(2));
	expect_pages(t, private);
	EXPECT_PINNED(VAL(2));

	unpin_pages();
	wait_for_hole(t);
	EXPECT_EQ(0, gmem_nr_allocated(t));
	for (i = 0; i < NR_PAGES; i++) {
		if (private & BIT(i))
			expect_private(t, i, 0, VAL(i));
		else
			expect_shared(t, i, 0, VAL(i));
	}
}

TEST_PIN(close_file)
{
	pin_pages(2, 1);
	gmem_conversion_free(&self->t);
	EXPECT_PINNED(VAL(2));
	unpin_pages();
}

TEST_PIN(destroy_vm)
{
	struct gmem_conversion *t = &self->t;

	pin_pages(2, 1);
	kvm_vm_free(t->vm);
	t->vm = NULL;
	expect_eagain(t, 0, NR_PAGES, 2);
	host_access(t, 2, VAL(2), 'a');
	EXPECT_PINNED('a');
	unpin_pages();
	wait_for_conversion(t, 2, 1);
	host_faults(t, 2);
}

FIXTURE(gmem_reference)
{
	struct gmem_conversion t;
};

FIXTURE_VARIANT(gmem_reference)
{
	struct gmem_backing backing;
};

FIXTURE_VARIANT_ADD(gmem_reference, 4K) { };
FIXTURE_VARIANT_ADD(gmem_reference, 2M) { GMEM_2M };
FIXTURE_VARIANT_ADD(gmem_reference, 2M_border) { GMEM_2M_BORDER };
FIXTURE_VARIANT_ADD(gmem_reference, 1G) { GMEM_1G };
FIXTURE_VARIANT_ADD(gmem_reference, 1G_middle) { GMEM_1G_MIDDLE };
FIXTURE_VARIANT_ADD(gmem_reference, 2M_nohvo) { GMEM_2M_NOHVO };
FIXTURE_VARIANT_ADD(gmem_reference, 1G_nohvo) { GMEM_1G_NOHVO };

FIXTURE_SETUP(gmem_reference)
{
	const char *missing = gmem_backing_use(&variant->backing);

	if (missing)
		SKIP(return, "%s", missing);
	gmem_conversion_init_filled(&self->t, OFFSET(NR_PAGES));
}

FIXTURE_TEARDOWN(gmem_reference)
{
	gmem_backing_finish(&self->t);
}

/* I/O goes on in a buffer after its page could not be converted. */
TEST_REFERENCE(registered_buffer)
{
	struct gmem_conversion *t = &self->t;
	u8 *page = t->mem + OFFSET(2), data[PAGE_SIZE], back[PAGE_SIZE];
	int file = memfd_create("data", 0);
	struct pin pin = {};

	if (!uring_open(&pin))
		SKIP(return, "io_uring_setup() failed: %s", strerror(errno));

	memset(data, 'a', PAGE_SIZE);
	ASSERT_EQ(PAGE_SIZE, pwrite(file, data, PAGE_SIZE, 0));
	ASSERT_EQ(0, uring_pin(&pin, page, PAGE_SIZE));
	expect_eagain(t, 2, 1, 2);
	EXPECT_EQ(PAGE_SIZE, uring_transfer(&pin, IORING_OP_READ_FIXED, file));
	EXPECT_EQ(0, memcmp(page, data, PAGE_SIZE));

	guest_access(t, 2, 'a', 'b');
	expect_eagain(t, 2, 1, 2);
	EXPECT_EQ(PAGE_SIZE, uring_transfer(&pin, IORING_OP_WRITE_FIXED, file));
	ASSERT_EQ(PAGE_SIZE, pread(file, back, PAGE_SIZE, 0));
	EXPECT_EQ(0, memcmp(page, back, PAGE_SIZE));
	EXPECT_EQ('b', back[0]);

	ASSERT_EQ(0, uring_unpin(&pin));
	wait_for_conversion(t, 2, 1);
	expect_private(t, 2, 'b', 'c');
}

/*
 * If the kernel copies the data instead, nobody has a reference.  Tried with
 * shared memory, as a write to private memory may make a copy itself.
 */
static bool vmsplice_refers(int fds[2])
{
	u8 *page = kvm_mmap(PAGE_SIZE, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1);
	struct iovec iov = { page, PAGE_SIZE };
	u8 back[PAGE_SIZE];

	TEST_ASSERT(vmsplice(fds[1], &iov, 1, 0) == PAGE_SIZE, "vmsplice() failed");
	WRITE_ONCE(page[0], 'a');
	TEST_ASSERT(read(fds[0], back, PAGE_SIZE) == PAGE_SIZE, "read() failed");
	kvm_munmap(page, PAGE_SIZE);
	return back[0] == 'a';
}

TEST_REFERENCE(vmsplice)
{
	struct gmem_conversion *t = &self->t;
	struct iovec iov = { t->mem + OFFSET(2), PAGE_SIZE };
	u8 back[PAGE_SIZE];
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	if (!vmsplice_refers(fds))
		SKIP(return, "vmsplice() copies");

	ASSERT_EQ(PAGE_SIZE, vmsplice(fds[1], &iov, 1, 0));
	expect_busy_pages(t, 2, 1);
	ASSERT_EQ(PAGE_SIZE, read(fds[0], back, PAGE_SIZE));
	EXPECT_EQ(VAL(2), back[0]);

	wait_for_conversion(t, 2, 1);
	EXPECT_ERRNO(EFAULT, vmsplice(fds[1], &iov, 1, 0));
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());

	gmem_backing_init();
	return test_harness_run(argc, argv);
}

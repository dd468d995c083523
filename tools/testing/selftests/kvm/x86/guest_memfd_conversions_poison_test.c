// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test memory errors in a guest_memfd that is converted in place: a page with an
 * error is lost to host and guest until a hole is punched, and only that page; and
 * the error is handled while everybody else goes on.
 */
#include <pthread.h>

#include "gmem_conversion.h"
#include "gmem_test.h"
#include "kselftest_harness.h"
#include "kvm_util.h"
#include "test_util.h"

#define NR_PAGES	64
#define TIMEOUT_SECONDS	180

/* Each takes a page from the system for good. */
#define NR_ERRORS	200

struct poison {
	struct gmem_conversion t;
	bool stop;
};

FIXTURE(gmem_poison)
{
	struct poison p;
};

FIXTURE_SETUP(gmem_poison)
{
	gmem_conversion_init_filled(&self->p.t, NR_PAGES * PAGE_SIZE);
}

FIXTURE_TEARDOWN(gmem_poison)
{
	gmem_conversion_free(&self->p.t);
}

static void ignore_sigbus(int signum)
{
}

/*
 * The kernel tells whoever has the page mapped by a signal, before it returns.  It
 * says EBUSY as the page stays in the file.
 */
static bool inject_error(struct gmem_conversion *t, u64 pgoff)
{
	struct sigaction old, new = { .sa_handler = ignore_sigbus };
	int err;

	sigaction(SIGBUS, &new, &old);
	err = madvise(t->mem + pgoff * PAGE_SIZE, PAGE_SIZE, MADV_HWPOISON) ? errno : 0;
	sigaction(SIGBUS, &old, NULL);
	return !err || err == EBUSY;
}

/* Get rid of the page, and of the host's page table entry that tells of the error. */
static void give_up(struct gmem_conversion *t, u64 pgoff)
{
	kvm_fallocate(t->fd, PUNCH, pgoff * PAGE_SIZE, PAGE_SIZE);
	kvm_madvise(t->mem + pgoff * PAGE_SIZE, PAGE_SIZE, MADV_DONTNEED);
}

TEST_F_TIMEOUT(gmem_poison, one_page, TIMEOUT_SECONDS)
{
	struct gmem_conversion *t = &self->p.t;
	u64 error_offset;

	if (!inject_error(t, 1))
		SKIP(return, "No MADV_HWPOISON");

	host_faults(t, 1);
	expect_shared(t, 0, VAL(0), 'a');
	expect_shared(t, 2, VAL(2), 'c');

	/* The others convert; the page itself is in use, until it is given up. */
	to_private(t, 0, 1);
	to_private(t, 2, 1);
	expect_private(t, 0, 'a', 'a');
	expect_private(t, 2, 'c', 'c');
	EXPECT_EQ(-1, __gmem_set_private(t->fd, 0, 3 * PAGE_SIZE, &error_offset));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(PAGE_SIZE, error_offset);

	give_up(t, 1);
	to_private(t, 0, 3);
	expect_private(t, 1, 0, 'b');
}

/* Hold the invalidate lock for reading, and wait for the locks of folios. */
static void *allocate(void *data)
{
	struct poison *p = data;

	while (!READ_ONCE(p->stop))
		kvm_fallocate(p->t.fd, ALLOCATE, 0, p->t.size);
	return NULL;
}

/* Take it for writing. */
static void *convert(void *data)
{
	struct poison *p = data;

	while (!READ_ONCE(p->stop)) {
		gmem_set_private(p->t.fd, 0, PAGE_SIZE);
		gmem_set_shared(p->t.fd, 0, PAGE_SIZE);
	}
	return NULL;
}

TEST_F_TIMEOUT(gmem_poison, while_others_go_on, TIMEOUT_SECONDS)
{
	struct gmem_conversion *t = &self->p.t;
	pthread_t allocator, converter;
	int i;

	kvm_pthread_create(&allocator, NULL, allocate, &self->p);
	kvm_pthread_create(&converter, NULL, convert, &self->p);

	for (i = 0; i < NR_ERRORS; i++) {
		u64 pgoff = 1 + i % (NR_PAGES - 1);

		WRITE_ONCE(t->mem[pgoff * PAGE_SIZE], 'a');
		if (!inject_error(t, pgoff))
			break;
		give_up(t, pgoff);
		EXPECT_EQ(0, READ_ONCE(t->mem[pgoff * PAGE_SIZE]));
	}

	WRITE_ONCE(self->p.stop, true);
	kvm_pthread_join(allocator, NULL);
	kvm_pthread_join(converter, NULL);

	if (!i)
		SKIP(return, "No MADV_HWPOISON");
	EXPECT_EQ(NR_ERRORS, i);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());

	return test_harness_run(argc, argv);
}

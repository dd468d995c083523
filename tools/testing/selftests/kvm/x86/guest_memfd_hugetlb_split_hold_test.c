// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test split HugeTLB pages of guest_memfd of which somebody holds a page, by a pin
 * or in a pipe: it keeps just that page from being converted, the huge page from
 * being punched out, and, if the file is closed, the huge page out of the pool for
 * as long as it lasts.
 *
 * Every case ends with the pool as it began, which is checked after its process is
 * gone.
 */
#include <sys/uio.h>
#include <sys/wait.h>

#include "gmem_pieces.h"
#include "gmem_test.h"
#include "kselftest_harness.h"

#define TEST_HOLD(name)	TEST_F_TIMEOUT(gmem_hold, name, PIECES_TIMEOUT)

/* In microseconds: what doesn't wait for anything has happened by then. */
#define MEANWHILE	300000

/* A page that is held, and the word that is in it. */
struct hold {
	int fd;
	int pipe[2];
};

static void pin_hold(struct hold *hold, struct gmem_conversion *t, u64 pgoff)
{
	hold->fd = host_pin(t, pgoff, 1);
}

static u64 pin_release(struct hold *hold)
{
	u64 page[PAGE_SIZE / sizeof(u64)], addr = (unsigned long)page;
	int r = ioctl(hold->fd, PIN_LONGTERM_TEST_READ, &addr);

	TEST_ASSERT(!r, KVM_IOCTL_ERROR(PIN_LONGTERM_TEST_READ, r));
	host_unpin(hold->fd);
	return page[0];
}

/* What goes through a pipe is not copied to it: it is a plain reference. */
static void pipe_hold(struct hold *hold, struct gmem_conversion *t, u64 pgoff)
{
	struct iovec iov = { t->mem + pgoff * PAGE_SIZE, PAGE_SIZE };

	TEST_ASSERT(!pipe(hold->pipe), "pipe() failed");
	TEST_ASSERT(vmsplice(hold->pipe[1], &iov, 1, 0) == PAGE_SIZE, "vmsplice() failed");
}

/* Reading the last byte of the page is what releases it. */
static u64 pipe_release(struct hold *hold)
{
	u64 page[PAGE_SIZE / sizeof(u64)];

	TEST_ASSERT(read(hold->pipe[0], page, PAGE_SIZE) == PAGE_SIZE, "read() failed");
	kvm_close(hold->pipe[0]);
	kvm_close(hold->pipe[1]);
	return page[0];
}

FIXTURE(gmem_hold)
{
	struct hugetlb_ledger ledger;
	struct gmem_conversion t;
	struct gmem_events events;
	u64 vmemmap;
};

FIXTURE_VARIANT(gmem_hold)
{
	size_t page_size;
	u64 flag;
	void (*hold)(struct hold *hold, struct gmem_conversion *t, u64 pgoff);
	u64 (*release)(struct hold *hold);
};

FIXTURE_VARIANT_ADD(gmem_hold, 2M_pin)
{
	.page_size = SZ_2M,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_2M,
	.hold = pin_hold,
	.release = pin_release,
};

FIXTURE_VARIANT_ADD(gmem_hold, 2M_pipe)
{
	.page_size = SZ_2M,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_2M,
	.hold = pipe_hold,
	.release = pipe_release,
};

FIXTURE_VARIANT_ADD(gmem_hold, 1G_pin)
{
	.page_size = SZ_1G,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_1G,
	.hold = pin_hold,
	.release = pin_release,
};

FIXTURE_VARIANT_ADD(gmem_hold, 1G_pipe)
{
	.page_size = SZ_1G,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_1G,
	.hold = pipe_hold,
	.release = pipe_release,
};

/* Pages of 4K in a huge page; where the tests have shared memory in it. */
#define NR		(variant->page_size / PAGE_SIZE)
#define SHARED		(NR / 2 + 40)
#define NR_SHARED	8
#define HELD		(SHARED + 3)

/* The file has two huge pages.  Of the first some pages are shared, and filled. */
FIXTURE_SETUP(gmem_hold)
{
	if (variant->hold == pin_hold && !host_can_pin())
		SKIP(return, "Can't pin memory for lack of gup_test");

	if (!hugetlb_pool_exists(variant->page_size) ||
	    hugetlb_pool_grow(variant->page_size, 2) < 2)
		SKIP(return, "The pool hasn't got two pages of %zu bytes", variant->page_size);

	hugetlb_ledger_open(&self->ledger, variant->page_size);
	gmem_pieces_init(&self->t, 2 * variant->page_size, variant->flag | GMEM_MMAP_PRIVATE);
	guest_fill(&self->t, 0, NR);
	self->vmemmap = gmem_info(self->t.fd).vmemmap;
	to_shared(&self->t, SHARED, NR_SHARED);
	self->events = gmem_events();
}

FIXTURE_TEARDOWN_PARENT(gmem_hold)
{
	EXPECT_BALANCE_SOON(&self->ledger, 0, 0);
	hugetlb_ledger_close(&self->ledger);
}

/* Test bodies know self and variant; so do these. */
#define EXPECT_EVENTS(split, merge, rejoin)	\
	expect_events(&self->events, split, merge, rejoin)
#define EXPECT_LEDGER(held, allocated)		\
	EXPECT_BALANCE(&self->ledger, held, allocated)
#define EXPECT_LEDGER_SOON(held, allocated)	\
	EXPECT_BALANCE_SOON(&self->ledger, held, allocated)

static void expect_refusal(struct gmem_conversion *t, u64 pgoff, u64 nr, u64 busy)
{
	struct gmem_info before = gmem_info(t->fd), after;
	u64 error_offset;
	int r = __gmem_set_private(t->fd, pgoff * PAGE_SIZE, nr * PAGE_SIZE, &error_offset);

	TEST_ASSERT(r == -1 && errno == EAGAIN && error_offset == busy * PAGE_SIZE,
		    "Expected EAGAIN for page %lu, got %s for offset 0x%lx", busy,
		    r ? strerror(errno) : "success", error_offset);

	after = gmem_info(t->fd);
	TEST_ASSERT(!memcmp(&before, &after, sizeof(before)),
		    "Expected a conversion that is refused to change nothing");
	host_expect(t, busy, 1);
}

/* Only the page that is held can't be converted, next to it all goes both ways. */
TEST_HOLD(neighbours)
{
	struct gmem_conversion *t = &self->t;
	struct hold hold;

	variant->hold(&hold, t, HELD);

	to_private(t, HELD - 1, 1);
	to_private(t, HELD + 1, 1);
	expect_pieces(t, 1, (struct gmem_run []) { { SHARED, 2 }, { HELD, 1 }, { HELD + 2, 3 } },
		      3);
	host_faults(t, HELD - 1);
	host_faults(t, HELD + 1);
	host_expect(t, HELD, 1);

	to_shared(t, HELD - 1, 1);
	to_shared(t, HELD + 1, 1);
	to_shared(t, SHARED - 2, 2);
	to_shared(t, SHARED + NR_SHARED, 100);
	expect_pieces(t, 1, &(struct gmem_run) { SHARED - 2, 2 + NR_SHARED + 100 }, 1);
	host_expect(t, SHARED - 2, 2 + NR_SHARED + 100);

	to_private(t, 0, HELD);
	to_private(t, HELD + 1, 2 * NR - HELD - 1);
	expect_pieces(t, 1, &(struct gmem_run) { HELD, 1 }, 1);
	EXPECT_EQ(2 * NR - 1, nr_private(t));
	guest_expect(t, 0, NR);
	EXPECT_EVENTS(0, 0, 0);

	EXPECT_EQ(PAGE_VAL(HELD), variant->release(&hold));
	expect_pieces(t, 1, &(struct gmem_run) { HELD, 1 }, 1);
	to_private(t, HELD, 1);
	expect_whole(t, 1);
	EXPECT_EVENTS(0, 1, 0);
	EXPECT_EQ(self->vmemmap, gmem_info(t->fd).vmemmap);
	guest_expect(t, 0, NR);
}

/* What contains the page is refused, for the first page that is held. */
TEST_HOLD(refusal)
{
	struct gmem_conversion *t = &self->t;
	struct hold hold, last;

	variant->hold(&hold, t, HELD);
	variant->hold(&last, t, SHARED + NR_SHARED - 1);
	expect_refusal(t, HELD, 1, HELD);
	expect_refusal(t, HELD, 2, HELD);
	expect_refusal(t, HELD - 1, 2, HELD);
	expect_refusal(t, 0, NR, HELD);
	expect_refusal(t, 0, 2 * NR, HELD);
	expect_refusal(t, HELD, 2 * NR - HELD, HELD);
	expect_refusal(t, HELD + 1, 2 * NR - HELD - 1, SHARED + NR_SHARED - 1);

	EXPECT_EQ(PAGE_VAL(HELD), variant->release(&hold));
	expect_refusal(t, 0, 2 * NR, SHARED + NR_SHARED - 1);
	EXPECT_EVENTS(0, 0, 0);

	variant->release(&last);
	to_private(t, 0, 2 * NR);
	expect_whole(t, 1);
	EXPECT_EVENTS(0, 1, 0);
	guest_expect(t, 0, NR);
}

TEST_HOLD(punch_hole)
{
	struct gmem_conversion *t = &self->t;
	struct gmem_run run = { SHARED, NR_SHARED };
	struct hold hold;

	variant->hold(&hold, t, HELD);
	guest_fill(t, NR, NR);
	EXPECT_LEDGER(2, 2);

	EXPECT_ERRNO(EAGAIN, fallocate(t->fd, PUNCH, 0, variant->page_size));
	EXPECT_ERRNO(EAGAIN, fallocate(t->fd, PUNCH, 0, t->size));
	expect_pieces(t, 2, &run, 1);
	EXPECT_EQ(2 * NR - NR_SHARED, nr_private(t));
	host_expect(t, SHARED, NR_SHARED);
	guest_expect(t, 0, 2 * NR);
	EXPECT_LEDGER(2, 2);

	/* The other page is nobody's. */
	kvm_fallocate(t->fd, PUNCH, variant->page_size, variant->page_size);
	EXPECT_LEDGER(2, 1);
	EXPECT_EVENTS(0, 0, 0);

	/* In the pool at once, not when it suits. */
	EXPECT_EQ(PAGE_VAL(HELD), variant->release(&hold));
	kvm_fallocate(t->fd, PUNCH, 0, variant->page_size);
	EXPECT_LEDGER(2, 0);
	EXPECT_EVENTS(0, 1, 0);

	/* A new page, which is shared where the old one was. */
	EXPECT_EQ(2 * NR - NR_SHARED, nr_private(t));
	EXPECT_EQ(0, READ_ONCE(*(u64 *)(t->mem + HELD * PAGE_SIZE)));
	expect_pieces(t, 1, &run, 1);
	host_faults(t, SHARED - 1);
	EXPECT_LEDGER(2, 1);
}

TEST_HOLD(punch_part)
{
	const struct gmem_run parts[] = {
		{ 0, 1 }, { SHARED, 1 }, { 0, NR - 1 }, { 1, NR - 1 }, { NR / 2, NR },
		{ 1, NR }, { 0, NR + 1 }, { NR - 1, 2 },
	};
	struct gmem_conversion *t = &self->t;
	int i;

	for (i = 0; i < ARRAY_SIZE(parts); i++)
		EXPECT_ERRNO(EINVAL, fallocate(t->fd, PUNCH, parts[i].first * PAGE_SIZE,
					       parts[i].nr * PAGE_SIZE));
	expect_pieces(t, 1, &(struct gmem_run) { SHARED, NR_SHARED }, 1);
	host_expect(t, SHARED, NR_SHARED);
	guest_expect(t, 0, NR);
	EXPECT_LEDGER(2, 1);
}

/* All of the file is reserved until the last page is back. */
TEST_HOLD(close_file)
{
	struct hold hold;

	guest_fill(&self->t, NR, NR);
	variant->hold(&hold, &self->t, HELD);
	EXPECT_LEDGER(2, 2);
	gmem_conversion_free(&self->t);
	EXPECT_LEDGER(2, 1);
	usleep(MEANWHILE);
	EXPECT_LEDGER(2, 1);
	EXPECT_EVENTS(0, 0, 0);

	/* Nobody has touched what is held. */
	EXPECT_EQ(PAGE_VAL(HELD), variant->release(&hold));
	EXPECT_LEDGER_SOON(0, 0);
	EXPECT_EVENTS(0, 0, 1);
	expect_pool_as_new(variant->page_size, variant->flag, self->vmemmap);
}

/* The last one who lets go of any page brings the huge page home. */
TEST_HOLD(close_file_held_often)
{
	struct gmem_conversion *t = &self->t;
	struct hold first, last, again, other;

	guest_fill(t, NR, NR);
	to_shared(t, NR, 1);
	variant->hold(&first, t, SHARED);
	variant->hold(&last, t, SHARED + NR_SHARED - 1);
	variant->hold(&again, t, SHARED + NR_SHARED - 1);
	variant->hold(&other, t, NR);
	gmem_conversion_free(t);
	EXPECT_LEDGER(2, 2);

	EXPECT_EQ(PAGE_VAL(SHARED + NR_SHARED - 1), variant->release(&last));
	EXPECT_EQ(PAGE_VAL(SHARED), variant->release(&first));
	usleep(MEANWHILE);
	EXPECT_LEDGER(2, 2);

	EXPECT_EQ(PAGE_VAL(NR), variant->release(&other));
	EXPECT_LEDGER_SOON(2, 1);
	usleep(MEANWHILE);
	EXPECT_LEDGER(2, 1);
	EXPECT_EVENTS(1, 0, 1);

	EXPECT_EQ(PAGE_VAL(SHARED + NR_SHARED - 1), variant->release(&again));
	EXPECT_LEDGER_SOON(0, 0);
	EXPECT_EVENTS(0, 0, 1);
}

/* A process that has nothing but the page, until it is killed; it shares @t itself. */
static pid_t fork_holder(struct gmem_conversion *t, u64 pgoff,
			 void (*hold_page)(struct hold *, struct gmem_conversion *, u64))
{
	struct gmem_conversion inherited = *t;
	struct hold hold;
	int ready[2];
	pid_t pid;
	char c;

	TEST_ASSERT(!pipe(ready), "pipe() failed");
	pid = fork();
	TEST_ASSERT(pid >= 0, __KVM_SYSCALL_ERROR("fork()", pid));
	if (!pid) {
		hold_page(&hold, &inherited, pgoff);
		gmem_conversion_free(&inherited);
		TEST_ASSERT(write(ready[1], "", 1) == 1, "write() failed");
		for (;;)
			pause();
	}
	TEST_ASSERT(read(ready[0], &c, 1) == 1, "The child has failed");
	return pid;
}

TEST_HOLD(close_file_held_by_child)
{
	struct gmem_conversion *t = &self->t;
	pid_t pid = fork_holder(t, HELD, variant->hold);

	/* The child's pin is no less of a pin. */
	expect_refusal(t, 0, NR, HELD);
	EXPECT_ERRNO(EAGAIN, fallocate(t->fd, PUNCH, 0, variant->page_size));

	gmem_conversion_free(t);
	EXPECT_LEDGER_SOON(2, 1);
	usleep(MEANWHILE);
	EXPECT_LEDGER(2, 1);
	EXPECT_EVENTS(0, 0, 0);

	kill(pid, SIGKILL);
	EXPECT_EQ(pid, waitpid(pid, NULL, 0));
	EXPECT_LEDGER_SOON(0, 0);
	EXPECT_EVENTS(0, 0, 1);
}

/* Those who have closed a file of KVM's may not be through with it. */
static void kvm_unload(void)
{
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (!access("/sys/module/kvm", F_OK)) {
		TEST_ASSERT(timespec_elapsed(start).tv_sec < GMEM_PATIENCE,
			    "Can't unload KVM: is it built in, or is somebody using it?");
		if (system("(modprobe -r kvm_amd || modprobe -r kvm_intel); modprobe -r kvm"))
			usleep(10000);
	}
}

static void kvm_load(void)
{
	TEST_ASSERT(!system("modprobe kvm_amd || modprobe kvm_intel"),
		    "Can't load KVM again");
}

/*
 * What is held outlives the file, and the code that the file was of.  That is nothing
 * to be done unasked: others may want KVM, or have given it other parameters than
 * modprobe does.
 */
TEST_HOLD(unload_kvm)
{
	struct hold hold;

	if (!getenv("GMEM_UNLOAD_KVM"))
		SKIP(return, "With GMEM_UNLOAD_KVM=1, modprobe unloads KVM and loads it again");

	variant->hold(&hold, &self->t, HELD);
	gmem_conversion_free(&self->t);
	kvm_unload();
	EXPECT_LEDGER(2, 1);
	EXPECT_EQ(PAGE_VAL(HELD), variant->release(&hold));
	EXPECT_LEDGER_SOON(0, 0);
	EXPECT_EVENTS(0, 0, 1);
	kvm_load();
	expect_pool_as_new(variant->page_size, variant->flag, self->vmemmap);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());

	hugetlb_ledger_init();
	return test_harness_run(argc, argv);
}

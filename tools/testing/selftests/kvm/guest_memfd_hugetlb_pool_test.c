// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test how guest_memfd shares the HugeTLB pool with others: a pool that is exhausted,
 * hugetlbfs, surplus pages, demotion, cgroups, NUMA nodes, and threads that allocate
 * or look at the same page at once.
 */
#include <pthread.h>
#include <stdio.h>

#include "gmem_hugetlb.h"
#include "numaif.h"

#define NR_THREADS	8

TEST_GMEM(pool_exhausted)
{
	long available = hugetlb_pool_available(PAGE);
	int all, other;

	/* Surplus pages, which the host is ready to give, are not for us. */
	hugetlb_pool_set_overcommit(PAGE, 4);
	EXPECT_ERRNO(ENOMEM, create(available + 1, 0));
	EXPECT_ERRNO(ENOMEM, __vm_create_guest_memfd(self->vm, 1ULL << 50, FLAG));
	EXPECT_LEDGER(0, 0);

	all = create(available, 0);
	ASSERT_LE(0, all);
	EXPECT_LEDGER(available, 0);
	EXPECT_ERRNO(ENOMEM, create(1, 0));
	EXPECT_LEDGER(available, 0);

	/* What one file gives back the next one can have. */
	close(all);
	other = create(1, 0);
	EXPECT_LE(0, other);
	EXPECT_LEDGER(1, 0);
	allocate(other, 0, 1);
	EXPECT_ERRNO(ENOMEM, create(available, 0));
	EXPECT_LEDGER(1, 1);
	all = create(available - 1, 0);
	EXPECT_LE(0, all);
	EXPECT_LEDGER(available, 1);
}

TEST_GMEM(against_hugetlbfs)
{
	long available = hugetlb_pool_available(PAGE);
	int fd, memfd;
	char *mem;

	/* The mapping reserves: the file can't be created ... */
	memfd = hugetlb_pool_memfd(PAGE, available);
	mem = kvm_mmap(available * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd);
	EXPECT_ERRNO(ENOMEM, create(1, 0));
	kvm_munmap(mem, available * PAGE);
	close(memfd);
	EXPECT_LEDGER(0, 0);

	/* ... the file reserves: nobody else gets a page, reserved or not ... */
	fd = create(available, 0);
	ASSERT_LE(0, fd);
	memfd = hugetlb_pool_memfd(PAGE, 1);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE, PROT_READ, MAP_SHARED, memfd, 0));
	EXPECT_EQ(ENOMEM, errno);
	mem = kvm_mmap(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memfd);
	TEST_EXPECT_SIGBUS(WRITE_ONCE(mem[0], 1));
	EXPECT_LEDGER(available, 0);

	/* ... so that all of the file can be allocated. */
	allocate(fd, 0, available);
	EXPECT_LEDGER(available, available);
	TEST_EXPECT_SIGBUS(WRITE_ONCE(mem[0], 1));
	punch(fd, 0, 1);
	TEST_EXPECT_SIGBUS(WRITE_ONCE(mem[0], 1));
	allocate(fd, 0, 1);
	close(fd);
	EXPECT_LEDGER(0, 0);

	/* A page that was in a guest_memfd serves the next user. */
	WRITE_ONCE(mem[0], 1);
	EXPECT_EQ(self->ledger.base.free - 1, hugetlb_pool_read(PAGE).free);
}

/*
 * While somebody holds a surplus page, a page that guest_memfd punches out must
 * not leave the pool in its stead: it is what keeps the reservation.
 */
TEST_GMEM(surplus_of_others)
{
	struct hugetlb_pool now;
	unsigned long node;
	int fd, memfd;
	char *mem;

	if (PAGE != SZ_2M)
		SKIP(return, "The pool can't be made small and large at will");

	hugetlb_pool_set_total(PAGE, self->ledger.base.total - hugetlb_pool_available(PAGE) + 1);
	hugetlb_pool_set_overcommit(PAGE, 1);
	ASSERT_EQ(1, hugetlb_pool_available(PAGE));

	/* Surplus counts by node: have both pages on the same one. */
	now = hugetlb_pool_read(PAGE);
	node = now.node[0].free ? 1 : 2;
	kvm_set_mempolicy(MPOL_BIND, &node, 8);

	fd = create(1, 0);
	ASSERT_LE(0, fd);
	allocate(fd, 0, 1);

	memfd = hugetlb_pool_memfd(PAGE, 1);
	mem = kvm_mmap(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd);
	WRITE_ONCE(mem[0], 1);
	EXPECT_EQ(1, hugetlb_pool_read(PAGE).surplus);

	punch(fd, 0, 1);
	now = hugetlb_pool_read(PAGE);
	EXPECT_LE(now.resv, now.free);
	EXPECT_EQ(0, fallocate(fd, ALLOCATE, 0, PAGE));

	close(fd);
	kvm_munmap(mem, PAGE);
	close(memfd);
	EXPECT_EQ(0, hugetlb_pool_read(PAGE).surplus);

	kvm_set_mempolicy(MPOL_DEFAULT, NULL, 0);
	hugetlb_ledger_restore_pools();
	hugetlb_pool_grow(PAGE, variant->nr_pages);
	EXPECT_LEDGER(0, 0);
}

/* Demotion can have what nobody reserved, whichever node it is told to take. */
TEST_GMEM(demotion_spares_reservations)
{
	long available = hugetlb_pool_available(PAGE);
	int fd, node;

	if (!hugetlb_pool_can_demote(PAGE))
		SKIP(return, "Pages of this size can't be demoted");

	fd = create(available, 0);
	ASSERT_LE(0, fd);
	for (node = -1; node < self->ledger.base.nr_nodes; node++) {
		hugetlb_pool_demote(PAGE, node, available);
		EXPECT_LEDGER(available, 0);
	}

	allocate(fd, 0, available);
	EXPECT_LEDGER(available, available);
}

TEST_GMEM(cgroup_limit)
{
	int fd;

	if (!self->ledger.cgroup[0])
		SKIP(return, "No cgroup v2 hierarchy with a hugetlb controller");

	hugetlb_ledger_set_limit(&self->ledger, "rsvd.max", PAGE);
	EXPECT_ERRNO(ENOMEM, create(2, 0));
	EXPECT_LEDGER(0, 0);

	fd = create(1, 0);
	ASSERT_LE(0, fd);
	EXPECT_LEDGER(1, 0);
	EXPECT_ERRNO(ENOMEM, create(1, 0));
	EXPECT_LEDGER(1, 0);
	allocate(fd, 0, 1);
	EXPECT_LEDGER(1, 1);
}

/* To have a page reserved doesn't help against the limit of what can be allocated. */
TEST_GMEM(cgroup_usage_limit)
{
	int fd;

	if (!self->ledger.cgroup[0])
		SKIP(return, "No cgroup v2 hierarchy with a hugetlb controller");

	fd = create(2, 0);
	ASSERT_LE(0, fd);
	hugetlb_ledger_set_limit(&self->ledger, "max", PAGE);
	allocate(fd, 0, 1);
	EXPECT_ERRNO(ENOMEM, fallocate(fd, ALLOCATE, PAGE, PAGE));
	EXPECT_LEDGER(2, 1);

	hugetlb_ledger_set_limit(&self->ledger, "max", 2 * PAGE);
	allocate(fd, 1, 1);
	EXPECT_LEDGER(2, 2);
}

struct race {
	pthread_barrier_t barrier;
	int fd, nr;
	size_t len;
	int nr_failed;
};

static void *race_to_allocate(void *data)
{
	struct race *race = data;
	int i;

	for (i = 0; i < race->nr; i++) {
		pthread_barrier_wait(&race->barrier);
		if (fallocate(race->fd, ALLOCATE, 0, race->len))
			__atomic_fetch_add(&race->nr_failed, 1, __ATOMIC_RELAXED);
		pthread_barrier_wait(&race->barrier);
	}
	return NULL;
}

/* There is one page left for eight threads that all want it, at one index. */
TEST_GMEM(threads_allocate_one_page)
{
	long available = hugetlb_pool_available(PAGE);
	struct race race = { .nr = variant->nr_races, .len = SZ_4K };
	pthread_t threads[NR_THREADS];
	int i;

	race.fd = create(available, 0);
	ASSERT_LE(0, race.fd);
	allocate(race.fd, 1, available - 1);
	pthread_barrier_init(&race.barrier, NULL, NR_THREADS + 1);
	for (i = 0; i < NR_THREADS; i++)
		kvm_pthread_create(&threads[i], NULL, race_to_allocate, &race);

	for (i = 0; i < race.nr; i++) {
		pthread_barrier_wait(&race.barrier);
		pthread_barrier_wait(&race.barrier);
		if (__test_passed(_metadata))
			EXPECT_LEDGER(available, available);
		punch(race.fd, 0, 1);
	}

	for (i = 0; i < NR_THREADS; i++)
		kvm_pthread_join(threads[i], NULL);
	EXPECT_EQ(0, race.nr_failed);
}

struct onlooker {
	char *mem;
	size_t len;
	bool stop;
};

static void *look_at_pages(void *data)
{
	struct onlooker *onlooker = data;
	unsigned char *vec = malloc(onlooker->len / getpagesize());

	while (!READ_ONCE(onlooker->stop))
		TEST_ASSERT(!mincore(onlooker->mem, onlooker->len, vec),
			    "mincore() failed");
	free(vec);
	return NULL;
}

/* In seconds: others have let go of a page for long enough by then. */
#define PUNCH_PATIENCE	20

static void punch_when_possible(int fd, size_t size)
{
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (fallocate(fd, PUNCH, 0, size)) {
		TEST_ASSERT(errno == EAGAIN, "Expected EAGAIN, if anything, got %s",
			    strerror(errno));
		TEST_ASSERT(timespec_elapsed(start).tv_sec < PUNCH_PATIENCE,
			    "Expected the page to be free for a moment");
	}
}

/*
 * mincore() holds the page that it looks at for a moment, perhaps while that is
 * punched out and reallocated.  The file has reserved no other page.
 */
TEST_GMEM(punch_while_others_look)
{
	long available = hugetlb_pool_available(PAGE);
	struct onlooker onlooker = { .len = PAGE };
	pthread_t thread;
	int fd, i;

	fd = create(available, GUEST_MEMFD_FLAG_MMAP);
	ASSERT_LE(0, fd);
	allocate(fd, 0, available);
	onlooker.mem = kvm_mmap(PAGE, PROT_READ, MAP_SHARED, fd);
	kvm_pthread_create(&thread, NULL, look_at_pages, &onlooker);

	for (i = 0; i < variant->nr_races * 4; i++) {
		punch_when_possible(fd, PAGE);
		EXPECT_EQ(0, fallocate(fd, ALLOCATE, 0, PAGE));
	}

	WRITE_ONCE(onlooker.stop, true);
	kvm_pthread_join(thread, NULL);
	EXPECT_LEDGER(available, available);
}

#define EXPECT_NODES(from_0, from_1)						\
do {										\
	struct hugetlb_pool now = hugetlb_pool_read(PAGE);			\
										\
	EXPECT_EQ(self->ledger.base.node[0].free - (from_0), now.node[0].free);	\
	EXPECT_EQ(self->ledger.base.node[1].free - (from_1), now.node[1].free);	\
} while (0)

TEST_GMEM(numa_policy)
{
	const unsigned long node0 = 1, node1 = 2, both = 3, maxnode = 8;
	char *mem;
	int fd;

	if (self->ledger.base.node[0].free < 1 || self->ledger.base.node[1].free < 2)
		SKIP(return, "Node 0 has no free page, or node 1 has fewer than two");

	fd = create(2, GUEST_MEMFD_FLAG_MMAP);
	ASSERT_LE(0, fd);
	mem = kvm_mmap(2 * PAGE, PROT_READ, MAP_SHARED, fd);

	kvm_mbind(mem, 2 * PAGE, MPOL_BIND, &node1, maxnode, 0);
	kvm_mbind(mem, PAGE, MPOL_BIND, &node0, maxnode, 0);
	allocate(fd, 0, 2);
	EXPECT_NODES(1, 1);

	kvm_mbind(mem, PAGE, MPOL_BIND, &node1, maxnode, 0);
	punch(fd, 0, 1);
	EXPECT_NODES(0, 1);
	allocate(fd, 0, 1);
	EXPECT_NODES(0, 2);
	punch(fd, 0, 2);
	EXPECT_NODES(0, 0);

	/* Neighbours are huge pages, not 4K pages. */
	kvm_mbind(mem, 2 * PAGE, MPOL_INTERLEAVE, &both, maxnode, 0);
	allocate(fd, 0, 2);
	EXPECT_NODES(1, 1);
	punch(fd, 0, 2);

	/* Without a policy of the file, the task's decides. */
	kvm_mbind(mem, 2 * PAGE, MPOL_DEFAULT, NULL, 0, 0);
	kvm_set_mempolicy(MPOL_BIND, &node1, maxnode);
	allocate(fd, 0, 1);
	EXPECT_NODES(0, 1);
	kvm_set_mempolicy(MPOL_BIND, &node0, maxnode);
	allocate(fd, 1, 1);
	EXPECT_NODES(1, 1);
	EXPECT_LEDGER(2, 2);
}

/* All that a file has reserved is there, but not where it may come from. */
TEST_GMEM(numa_node_exhausted)
{
	const unsigned long node0 = 1, maxnode = 8;
	long nr = self->ledger.base.node[0].free;
	int others, fd;
	char *mem;

	if (!nr || self->ledger.base.node[1].free < 1)
		SKIP(return, "A node has no free page");

	kvm_set_mempolicy(MPOL_BIND, &node0, maxnode);
	others = create(nr, 0);
	ASSERT_LE(0, others);
	allocate(others, 0, nr);
	kvm_set_mempolicy(MPOL_DEFAULT, NULL, 0);

	fd = create(1, GUEST_MEMFD_FLAG_MMAP);
	ASSERT_LE(0, fd);
	mem = kvm_mmap(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
	kvm_mbind(mem, PAGE, MPOL_BIND, &node0, maxnode, 0);
	EXPECT_ERRNO(ENOMEM, fallocate(fd, ALLOCATE, 0, PAGE));
	EXPECT_LEDGER(nr + 1, nr);

	kvm_mbind(mem, PAGE, MPOL_DEFAULT, NULL, 0, 0);
	allocate(fd, 0, 1);
	EXPECT_LEDGER(nr + 1, nr + 1);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_GUEST_MEMFD));

	hugetlb_ledger_init();
	return test_harness_run(argc, argv);
}

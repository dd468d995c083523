// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test what else the kernel does with memory that is mapped, on the shared part of a
 * HugeTLB page of guest_memfd that is split: direct I/O, mlock(), madvise(), tries to
 * move or to reclaim it, and what looks at page frames.  It works or is refused; the
 * memory stays where it is, with its contents, and becomes one page again.
 *
 * See guest_memfd_conversions_io_test and guest_memfd_conversions_pin_test for what
 * doesn't depend on how the memory came to be single pages.
 */
#include <sys/wait.h>

#include "gmem_pieces.h"
#include "gmem_test.h"
#include "kselftest_harness.h"
#include "numaif.h"

#define RAM_DISK	"/dev/ram0"

#define TEST_IO(name)	TEST_F_TIMEOUT(gmem_split_io, name, PIECES_TIMEOUT)

FIXTURE(gmem_split_io)
{
	struct hugetlb_ledger ledger;
	struct gmem_conversion t;
	u64 mlocked;
};

FIXTURE_VARIANT(gmem_split_io)
{
	size_t page_size;
	u64 flag;
};

FIXTURE_VARIANT_ADD(gmem_split_io, 2M)
{
	.page_size = SZ_2M,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_2M,
};

FIXTURE_VARIANT_ADD(gmem_split_io, 1G)
{
	.page_size = SZ_1G,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_1G,
};

/* Pages of 4K in a huge page, and which of them are shared. */
#define NR		(variant->page_size / PAGE_SIZE)
#define SHARED		(NR / 2 - 8)
#define NR_SHARED	16

#define ADDR(pgoff)	(self->t.mem + (u64)(pgoff) * PAGE_SIZE)
#define SHARED_MEM	ADDR(SHARED)
#define SHARED_SIZE	(NR_SHARED * PAGE_SIZE)

static void write_setting(const char *path, const char *val)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0)
		return;
	TEST_ASSERT(write(fd, val, strlen(val)) == strlen(val), "Can't write to %s", path);
	kvm_close(fd);
}

/* CPUs keep some of it to themselves until they are asked. */
static u64 nr_mlocked(void)
{
	write_setting("/proc/sys/vm/stat_refresh", "1");
	return vm_event_count("nr_mlock");
}

FIXTURE_SETUP(gmem_split_io)
{
	if (!hugetlb_pool_exists(variant->page_size) ||
	    hugetlb_pool_grow(variant->page_size, 1) < 1)
		SKIP(return, "The pool hasn't got a page of %zu bytes", variant->page_size);

	hugetlb_ledger_open(&self->ledger, variant->page_size);
	self->mlocked = nr_mlocked();
	gmem_pieces_init(&self->t, variant->page_size, variant->flag | GMEM_MMAP_PRIVATE);
	guest_fill(&self->t, 0, NR);
	to_shared(&self->t, SHARED, NR_SHARED);
	host_expect(&self->t, SHARED, NR_SHARED);
}

FIXTURE_TEARDOWN_PARENT(gmem_split_io)
{
	EXPECT_BALANCE_SOON(&self->ledger, 0, 0);
	EXPECT_EQ(self->mlocked, nr_mlocked());
	hugetlb_ledger_close(&self->ledger);
}

/* Test bodies know self and variant; so do these. */
#define EXPECT_UNCHANGED()								\
do {											\
	expect_pieces(&self->t, 1, &(struct gmem_run) { SHARED, NR_SHARED }, 1);	\
	host_expect(&self->t, SHARED, NR_SHARED);					\
	guest_expect(&self->t, 0, NR);							\
} while (0)

/* Nobody holds any of it. */
#define EXPECT_MERGES()									\
do {											\
	to_private(&self->t, 0, NR);							\
	expect_whole(&self->t, 1);							\
	guest_expect(&self->t, 0, NR);							\
	EXPECT_BALANCE(&self->ledger, 1, 1);						\
} while (0)

/* Out of the shared memory to a disk, and back to another place in it. */
TEST_IO(direct_io)
{
	u8 *half = SHARED_MEM + SHARED_SIZE / 2;
	int disk = open(RAM_DISK, O_RDWR | O_DIRECT);

	if (disk < 0)
		SKIP(return, "Can't open " RAM_DISK ": %s", strerror(errno));

	ASSERT_EQ(SHARED_SIZE, pwrite(disk, SHARED_MEM, SHARED_SIZE, 0));
	memset(SHARED_MEM, 0xff, SHARED_SIZE);
	ASSERT_EQ(SHARED_SIZE / 2, pread(disk, half, SHARED_SIZE / 2, SHARED_SIZE / 2));
	host_expect(&self->t, SHARED + NR_SHARED / 2, NR_SHARED / 2);
	ASSERT_EQ(SHARED_SIZE, pread(disk, SHARED_MEM, SHARED_SIZE, 0));
	EXPECT_UNCHANGED();

	/* On both sides of it nothing is to be had. */
	EXPECT_ERRNO(EFAULT, pread(disk, ADDR(SHARED - 1), PAGE_SIZE, 0));
	EXPECT_ERRNO(EFAULT, pwrite(disk, ADDR(SHARED - 1), PAGE_SIZE, 0));
	EXPECT_ERRNO(EFAULT, pread(disk, ADDR(SHARED + NR_SHARED), PAGE_SIZE, 0));
	EXPECT_ERRNO(EFAULT, pwrite(disk, ADDR(SHARED + NR_SHARED), PAGE_SIZE, 0));
	EXPECT_UNCHANGED();
	EXPECT_MERGES();
	EXPECT_ERRNO(EFAULT, pread(disk, SHARED_MEM, PAGE_SIZE, 0));
	EXPECT_ERRNO(EFAULT, pwrite(disk, SHARED_MEM, PAGE_SIZE, 0));
	guest_expect(&self->t, 0, NR);
	kvm_close(disk);
}

/* As debuggers do. */
TEST_IO(proc_mem)
{
	int fd = open("/proc/self/mem", O_RDWR);
	u64 val;

	ASSERT_LE(0, fd);
	EXPECT_EQ(8, pread(fd, &val, 8, (unsigned long)SHARED_MEM));
	EXPECT_EQ(PAGE_VAL(SHARED), val);
	val = PAGE_VAL(SHARED + 1);
	EXPECT_EQ(8, pwrite(fd, &val, 8, (unsigned long)ADDR(SHARED + 1)));
	EXPECT_ERRNO(EIO, pread(fd, &val, 8, (unsigned long)ADDR(SHARED - 1)));
	EXPECT_ERRNO(EIO, pwrite(fd, &val, 8, (unsigned long)ADDR(SHARED - 1)));
	EXPECT_UNCHANGED();
	EXPECT_MERGES();
	kvm_close(fd);
}

/* mlock() keeps memory where it is, but not from being converted. */
TEST_IO(mlocked)
{
	ASSERT_EQ(0, mlock(SHARED_MEM, SHARED_SIZE));
	EXPECT_EQ(self->mlocked + NR_SHARED, nr_mlocked());
	EXPECT_ERRNO(ENOMEM, mlock(ADDR(SHARED - 1), PAGE_SIZE));
	EXPECT_UNCHANGED();

	to_private(&self->t, SHARED, 1);
	EXPECT_EQ(self->mlocked + NR_SHARED - 1, nr_mlocked());
	to_shared(&self->t, SHARED, 1);
	EXPECT_UNCHANGED();
	EXPECT_MERGES();
	EXPECT_EQ(self->mlocked, nr_mlocked());

	/* The mapping still is what will be locked when it is touched. */
	to_shared(&self->t, SHARED, NR_SHARED);
	host_expect(&self->t, SHARED, NR_SHARED);
	EXPECT_EQ(self->mlocked + NR_SHARED, nr_mlocked());
	EXPECT_EQ(0, munlock(SHARED_MEM, SHARED_SIZE));
	EXPECT_MERGES();
	EXPECT_EQ(self->mlocked, nr_mlocked());
}

/* A CPU that has unmapped locked pages keeps some for later, which may be never. */
TEST_IO(mlocked_at_close)
{
	int cpu, first = -1, last = -1;
	cpu_set_t cpus;

	kvm_sched_getaffinity(0, sizeof(cpus), &cpus);
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &cpus))
			continue;
		first = first < 0 ? cpu : first;
		last = cpu;
	}

	pin_self_to_cpu(first);
	ASSERT_EQ(0, mlock(SHARED_MEM, SHARED_SIZE));
	EXPECT_EQ(self->mlocked + NR_SHARED, nr_mlocked());
	kvm_munmap(SHARED_MEM, SHARED_SIZE);
	pin_self_to_cpu(last);
	gmem_conversion_free(&self->t);
	EXPECT_BALANCE_SOON(&self->ledger, 0, 0);
	EXPECT_EQ(self->mlocked, nr_mlocked());
}

TEST_IO(mlocked_at_exit)
{
	ASSERT_EQ(0, mlock(SHARED_MEM, SHARED_SIZE));
	EXPECT_EQ(self->mlocked + NR_SHARED, nr_mlocked());
}

TEST_IO(populate)
{
	struct gmem_conversion *t = &self->t;

	kvm_munmap(t->mem, t->size);
	t->mem = kvm_mmap(t->size, PROT_READ | PROT_WRITE, MAP_SHARED, t->fd);
	kvm_madvise(SHARED_MEM, SHARED_SIZE / 2, MADV_POPULATE_READ);
	kvm_madvise(SHARED_MEM, SHARED_SIZE, MADV_POPULATE_WRITE);
	EXPECT_TRUE(host_has_mapped(t, SHARED));
	EXPECT_TRUE(host_has_mapped(t, SHARED + NR_SHARED - 1));

	EXPECT_ERRNO(EFAULT, madvise(ADDR(SHARED - 1), PAGE_SIZE, MADV_POPULATE_READ));
	EXPECT_ERRNO(EFAULT, madvise(ADDR(SHARED - 1), PAGE_SIZE, MADV_POPULATE_WRITE));
	EXPECT_ERRNO(EFAULT, madvise(SHARED_MEM, SHARED_SIZE + PAGE_SIZE, MADV_POPULATE_WRITE));
	EXPECT_FALSE(host_has_mapped(t, SHARED - 1));
	EXPECT_FALSE(host_has_mapped(t, SHARED + NR_SHARED));
	EXPECT_UNCHANGED();
	EXPECT_MERGES();
}

/* What might take the memory away, split it or put it together. */
TEST_IO(advice)
{
	const struct {
		int advice;
		bool fails;
	} advices[] = {
		{ MADV_COLD }, { MADV_PAGEOUT }, { MADV_DONTNEED }, { MADV_WILLNEED },
		{ MADV_MERGEABLE },
		{ MADV_FREE, true }, { MADV_REMOVE, true }, { MADV_COLLAPSE, true },
	};
	u64 pfn = pfn_of(SHARED_MEM);
	int i, r;

	for (i = 0; i < ARRAY_SIZE(advices); i++) {
		r = madvise(SHARED_MEM, SHARED_SIZE, advices[i].advice);
		if (advices[i].fails) {
			EXPECT_EQ(-1, r)
				TH_LOG("Expected advice %d to be refused", advices[i].advice);
		}
		EXPECT_UNCHANGED();
		EXPECT_EQ(pfn, pfn_of(SHARED_MEM));
	}
	EXPECT_MERGES();
}

/* A block of 2M that is aligned everywhere, but nothing for khugepaged to collapse. */
TEST_IO(collapse)
{
	const size_t size = 2 * SZ_2M;
	struct gmem_conversion *t = &self->t;
	u64 i, offset = (NR / 2 / BLOCK_NR) * SZ_2M;
	u8 *area, *mem;

	area = kvm_mmap(size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	mem = (u8 *)(((unsigned long)area + SZ_2M - 1) & ~(SZ_2M - 1UL));
	mem = mmap(mem, SZ_2M, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, t->fd, offset);
	ASSERT_NE(MAP_FAILED, mem);
	to_shared(t, offset / PAGE_SIZE, BLOCK_NR);
	for (i = 0; i < BLOCK_NR; i++)
		ASSERT_EQ(PAGE_VAL(offset / PAGE_SIZE + i),
			  READ_ONCE(*(u64 *)(mem + i * PAGE_SIZE)));

	madvise(mem, SZ_2M, MADV_HUGEPAGE);
	EXPECT_EQ(-1, madvise(mem, SZ_2M, MADV_COLLAPSE));
	expect_pieces(t, 1, (struct gmem_run []) {
			{ min(SHARED, offset / PAGE_SIZE),
			  offset / PAGE_SIZE + BLOCK_NR - min(SHARED, offset / PAGE_SIZE) },
		      }, 1);
	EXPECT_MERGES();
	kvm_munmap(area, size);
}

static int node_of_pfn(void *addr)
{
	int status = -1;

	kvm_move_pages(0, 1, &addr, NULL, &status, 0);
	return status;
}

/* Memory of a guest_memfd stays, and so does what belongs to a huge page. */
TEST_IO(migration)
{
	const unsigned long both = 3;
	void *addr = SHARED_MEM;
	u64 pfn = pfn_of(addr);
	int node = node_of_pfn(addr), other = !node, status = -1;
	unsigned long mask = BIT(other), from = BIT(node);

	if (!is_multi_numa_node_system())
		SKIP(return, "There is nowhere to move memory to");

	EXPECT_LE(0, node);
	move_pages(0, 1, &addr, &other, &status, MPOL_MF_MOVE_ALL);
	EXPECT_GT(0, status);
	EXPECT_EQ(node, node_of_pfn(addr));

	EXPECT_EQ(-1, mbind(addr, SHARED_SIZE, MPOL_BIND, &mask, 8,
			    MPOL_MF_MOVE_ALL | MPOL_MF_STRICT));
	mbind(addr, SHARED_SIZE, MPOL_DEFAULT, NULL, 0, 0);
	migrate_pages(0, 8, &from, &mask);
	migrate_pages(0, 8, &mask, &both);
	write_setting("/proc/sys/vm/compact_memory", "1");
	EXPECT_UNCHANGED();
	EXPECT_EQ(pfn, pfn_of(addr));
	EXPECT_EQ(node, node_of_pfn(addr));
	EXPECT_MERGES();
}

/* There is no other copy of what is in the page cache. */
TEST_IO(reclaim)
{
	u64 pfn = pfn_of(SHARED_MEM);

	write_setting("/proc/sys/vm/drop_caches", "3");
	EXPECT_UNCHANGED();
	EXPECT_EQ(pfn, pfn_of(SHARED_MEM));

	/* Not mapped, it is no less needed. */
	kvm_madvise(SHARED_MEM, SHARED_SIZE, MADV_DONTNEED);
	EXPECT_FALSE(host_has_mapped(&self->t, SHARED));
	write_setting("/proc/sys/vm/drop_caches", "3");
	EXPECT_UNCHANGED();
	EXPECT_EQ(pfn, pfn_of(SHARED_MEM));
	EXPECT_MERGES();
}

static void read_all(int fd, void *buf, size_t len, off_t pos)
{
	ssize_t r;

	for (; len; buf += r, len -= r, pos += r) {
		r = pread(fd, buf, len, pos);
		TEST_ASSERT(r > 0, "Expected %zu more bytes at %ld, got %zd", len, pos, r);
	}
}

/* What is told of each page frame: pieces of all orders are looked at. */
TEST_IO(page_frames)
{
	const char * const files[] = { "/proc/kpageflags", "/proc/kpagecgroup",
				       "/sys/kernel/mm/page_idle/bitmap" };
	u64 first = pfn_of(SHARED_MEM) - SHARED, pgoff;
	u64 *counts = calloc(NR, sizeof(u64));
	size_t len;
	int i, fd;

	for (i = 0; i < ARRAY_SIZE(files); i++) {
		fd = open(files[i], O_RDONLY);
		if (fd < 0)
			continue;
		/* One has a bit for each, the others a word. */
		len = strstr(files[i], "bitmap") ? NR / 8 : NR * 8;
		read_all(fd, counts, len, first * len / NR);
		kvm_close(fd);
	}

	/* How often each is mapped. */
	fd = open("/proc/kpagecount", O_RDONLY);
	ASSERT_LE(0, fd);
	read_all(fd, counts, NR * 8, first * 8);
	for (pgoff = 0; pgoff < NR; pgoff++)
		ASSERT_EQ(pgoff >= SHARED && pgoff < SHARED + NR_SHARED, counts[pgoff])
			TH_LOG("Page %lu is mapped %lu times", pgoff, counts[pgoff]);
	kvm_close(fd);
	EXPECT_UNCHANGED();
	EXPECT_MERGES();
}

/* A child's mapping is one more, and goes with the conversion as the parent's does. */
TEST_IO(child)
{
	struct gmem_conversion *t = &self->t;
	int status, fds[2];
	pid_t pid;
	char c;

	ASSERT_EQ(0, pipe(fds));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		kvm_close(fds[1]);
		host_expect(t, SHARED, NR_SHARED);
		WRITE_ONCE(*(u64 *)SHARED_MEM, 1);
		/* Until the parent has converted, or is gone. */
		if (read(fds[0], &c, 1) != 1)
			_exit(1);
		host_faults(t, SHARED);
		host_faults(t, SHARED + NR_SHARED - 1);
		_exit(0);
	}
	while (READ_ONCE(*(u64 *)SHARED_MEM) != 1)
		usleep(1000);
	WRITE_ONCE(*(u64 *)SHARED_MEM, PAGE_VAL(SHARED));
	EXPECT_UNCHANGED();
	EXPECT_MERGES();
	ASSERT_EQ(1, write(fds[1], "", 1));
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	guest_expect(t, 0, NR);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());

	hugetlb_ledger_init();
	return test_harness_run(argc, argv);
}

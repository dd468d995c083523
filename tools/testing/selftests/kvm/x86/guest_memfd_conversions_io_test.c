// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test in-place conversion of guest_memfd against I/O: what goes on blocks a
 * conversion for a moment at most, what comes later can't reach private memory.
 * See guest_memfd_conversions_pin_test for references that last.
 *
 * Each case has a process of its own, whose end releases what the case holds.
 */
#include <sys/uio.h>
#include <sys/wait.h>

#include "gmem_backing.h"
#include "gmem_conversion.h"
#include "gmem_test.h"
#include "kselftest_harness.h"

#define RAM_DISK	"/dev/ram0"

#define NR_PAGES	8
#define ALL_PAGES	(BIT_ULL(NR_PAGES) - 1)

/* In seconds: how long to race. */
#define RACE		8
#define TEST_IO(name)	TEST_F_TIMEOUT(gmem_io, name, 180)

FIXTURE(gmem_io)
{
	struct gmem_conversion t;
};

FIXTURE_VARIANT(gmem_io)
{
	struct gmem_backing backing;
};

FIXTURE_VARIANT_ADD(gmem_io, 4K) { };
FIXTURE_VARIANT_ADD(gmem_io, 2M) { GMEM_2M };
FIXTURE_VARIANT_ADD(gmem_io, 1G) { GMEM_1G };

FIXTURE_SETUP(gmem_io)
{
	const char *missing = gmem_backing_use(&variant->backing);

	if (missing)
		SKIP(return, "%s", missing);
	gmem_conversion_init_filled(&self->t, OFFSET(NR_PAGES));
}

FIXTURE_TEARDOWN(gmem_io)
{
	gmem_backing_finish(&self->t);
}

/* Has what it inherits mapped until it is told to exit, or nobody can tell it. */
static pid_t fork_until_eof(int *fd)
{
	int fds[2];
	pid_t pid;
	char c;

	TEST_ASSERT(!pipe(fds), "pipe() failed");
	pid = fork();
	TEST_ASSERT(pid >= 0, __KVM_SYSCALL_ERROR("fork()", pid));
	if (!pid) {
		kvm_close(fds[1]);
		_exit(read(fds[0], &c, 1));
	}
	kvm_close(fds[0]);
	*fd = fds[1];
	return pid;
}

TEST_IO(process_vm)
{
	struct gmem_conversion *t = &self->t;
	u8 buf[2 * PAGE_SIZE];
	struct iovec local = { buf, sizeof(buf) };
	struct iovec remote = { t->mem + OFFSET(2), sizeof(buf) };
	int status, fd;
	pid_t pid = fork_until_eof(&fd);
	ssize_t r = process_vm_readv(pid, &local, 1, &remote, 1, 0);

	EXPECT_EQ(sizeof(buf), r);
	EXPECT_EQ(VAL(2), buf[0]);
	buf[0] = 'a';
	EXPECT_EQ(sizeof(buf), process_vm_writev(pid, &local, 1, &remote, 1, 0));

	/* They have let go of the pages, and stop at the first private one. */
	to_private(t, 3, 1);
	EXPECT_EQ(PAGE_SIZE, process_vm_readv(pid, &local, 1, &remote, 1, 0));
	EXPECT_EQ('a', buf[0]);
	to_private(t, 2, 1);
	memset(buf, 'b', sizeof(buf));
	EXPECT_ERRNO(EFAULT, process_vm_readv(pid, &local, 1, &remote, 1, 0));
	EXPECT_EQ('b', buf[0]);
	EXPECT_ERRNO(EFAULT, process_vm_writev(pid, &local, 1, &remote, 1, 0));
	expect_private(t, 2, 'a', 'a');
	expect_private(t, 3, VAL(3), VAL(3));

	kvm_close(fd);
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

/* Copies to and from user memory, where pages 2 and 3 are private. */
TEST_IO(read_and_write)
{
	struct gmem_conversion *t = &self->t;
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_NONBLOCK));
	to_private(t, 2, 2);

	EXPECT_ERRNO(EFAULT, write(fds[1], t->mem + OFFSET(2), PAGE_SIZE));
	EXPECT_ERRNO(EAGAIN, read(fds[0], t->mem, PAGE_SIZE));
	EXPECT_EQ(PAGE_SIZE, write(fds[1], t->mem + OFFSET(1), 2 * PAGE_SIZE));
	EXPECT_EQ(PAGE_SIZE, write(fds[1], t->mem + OFFSET(5), PAGE_SIZE));

	EXPECT_ERRNO(EFAULT, read(fds[0], t->mem + OFFSET(3), PAGE_SIZE));
	EXPECT_EQ(PAGE_SIZE, read(fds[0], t->mem + OFFSET(1), 2 * PAGE_SIZE));
	EXPECT_EQ(PAGE_SIZE, read(fds[0], t->mem + OFFSET(0), PAGE_SIZE));
	host_access(t, 0, VAL(5), VAL(0));
	expect_pages(t, BIT_ULL(2) | BIT_ULL(3));
}

/* Reads the disk into one page, as often at once as makes that take a while. */
struct disk_reader {
	int fd;
	void *page;
	bool stop;
	u64 nr_tries, nr_reads;
};

static void *read_disk(void *data)
{
	struct disk_reader *reader = data;
	struct iovec iov[32];
	ssize_t r;
	int i;

	for (i = 0; i < ARRAY_SIZE(iov); i++)
		iov[i] = (struct iovec) { reader->page, PAGE_SIZE };

	while (!READ_ONCE(reader->stop)) {
		r = preadv(reader->fd, iov, ARRAY_SIZE(iov), 0);
		TEST_ASSERT(r == ARRAY_SIZE(iov) * PAGE_SIZE ||
			    (r == -1 && errno == EFAULT),
			    "Expected all data or EFAULT, got %ld (%s)", r, strerror(errno));
		if (r > 0)
			WRITE_ONCE(reader->nr_reads, reader->nr_reads + 1);
		WRITE_ONCE(reader->nr_tries, reader->nr_tries + 1);
	}
	return NULL;
}

/* Of two tries that end from now on, one begins from now on. */
static void wait_for_reader(struct disk_reader *reader)
{
	u64 nr = READ_ONCE(reader->nr_tries) + 2;
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (READ_ONCE(reader->nr_tries) < nr) {
		TEST_ASSERT(timespec_elapsed(start).tv_sec < GMEM_PATIENCE,
			    "Expected the reader to go on");
		usleep(10);
	}
}

static void guest_fill_and_check(void)
{
	u64 *page = (u64 *)(GMEM_GPA + OFFSET(2)), val, i;

	for (val = 1;; val++) {
		for (i = 0; i < PAGE_SIZE / sizeof(u64); i++)
			WRITE_ONCE(page[i], ~val);
		GUEST_SYNC(val);
		for (i = 0; i < PAGE_SIZE / sizeof(u64); i++)
			GUEST_ASSERT_EQ(READ_ONCE(page[i]), ~val);
		GUEST_SYNC(val);
	}
}

/* The page is the guest's alone from the conversion on, down to the last byte. */
TEST_IO(direct_io)
{
	struct gmem_conversion *t = &self->t;
	struct disk_reader reader = {
		.fd = open(RAM_DISK, O_RDONLY | O_DIRECT),
		.page = t->mem + OFFSET(2),
	};
	u64 i, nr_reads, nr_refused = 0;
	struct timespec start;
	pthread_t thread;

	if (reader.fd < 0)
		SKIP(return, "Can't read " RAM_DISK ": %s", strerror(errno));

	vcpu_arch_set_entry_point(t->vcpu, guest_fill_and_check);
	kvm_pthread_create(&thread, NULL, read_disk, &reader);
	clock_gettime(CLOCK_MONOTONIC, &start);

	for (i = 0; i < 500 && timespec_elapsed(start).tv_sec < RACE; i++) {
		nr_refused += wait_for_conversion(t, 2, 1);
		guest_run(t->vcpu);
		wait_for_reader(&reader);
		nr_reads = READ_ONCE(reader.nr_reads);
		wait_for_reader(&reader);
		guest_run(t->vcpu);
		TEST_ASSERT(READ_ONCE(reader.nr_reads) == nr_reads,
			    "Expected reads to fail while the page is private");

		to_shared(t, 0, NR_PAGES);
		wait_for_reader(&reader);
		TEST_ASSERT(READ_ONCE(reader.nr_reads) > nr_reads,
			    "Expected reads to succeed while the page is shared");
	}
	WRITE_ONCE(reader.stop, true);
	kvm_pthread_join(thread, NULL);

	TH_LOG("%lu rounds, refused %lu times; %lu of %lu reads succeeded", i,
	       nr_refused, reader.nr_reads, reader.nr_tries);
	EXPECT_LE(20, i);
	EXPECT_LT(0, nr_refused);
}

static int nth_cpu(int n)
{
	cpu_set_t cpus;
	int cpu;

	kvm_sched_getaffinity(0, sizeof(cpus), &cpus);
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, &cpus) && !n--)
			break;
	}
	return cpu;
}

/*
 * KVM maps pages without keeping a reference.  New ones may be in a per-CPU list
 * of another CPU than the one that converts, which is no reason to refuse.
 */
TEST_IO(vcpu)
{
	struct gmem_conversion *t = &self->t;
	/* Each round zeroes a page. */
	int nr_rounds = gmem_backing.flag & GUEST_MEMFD_FLAG_HUGETLB_1G ? 4 : 20;
	int i, pgoff, cpus[2] = { nth_cpu(0), nth_cpu(1) };

	if (cpus[1] == CPU_SETSIZE)
		SKIP(return, "There is only one CPU");

	for (i = 0; i < nr_rounds; i++) {
		ASSERT_EQ(0, gmem_punch(t, 0, NR_PAGES));
		pin_self_to_cpu(cpus[i % 2]);
		for (pgoff = 0; pgoff < NR_PAGES; pgoff++)
			guest_access(t, pgoff, 0, VAL(pgoff));
		pin_self_to_cpu(cpus[!(i % 2)]);
		to_private(t, 0, NR_PAGES);
		expect_pages(t, ALL_PAGES);
		to_shared(t, 0, NR_PAGES);
	}
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());

	gmem_backing_init();
	return test_harness_run(argc, argv);
}

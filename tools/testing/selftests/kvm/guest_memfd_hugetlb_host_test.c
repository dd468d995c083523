// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test the host's access to shared memory of a guest_memfd on HugeTLB pages, without
 * conversion: the host maps single pages, all of them those of one huge page, which
 * is back in the pool at once when the file is done with it.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "gmem_hugetlb.h"

#define NR_THREADS	8

#define MEMORY_BLOCKS	"/sys/devices/system/memory/"

/* Between the pages that a test touches: all of 2M, and one in each 2M of 1G. */
#define STEP	(variant->page_size == SZ_1G ? SZ_2M + SZ_4K : SZ_4K)

#define create_shared()	create(1, GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)
/* Beyond the end of the file, too. */
#define map_shared(fd)	kvm_mmap(2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd)

static char value(size_t off)
{
	return off / SZ_4K % 127 + 1;
}

#define EXPECT_FILLED(_mem)							\
do {										\
	size_t off;								\
										\
	for (off = 0; off < PAGE; off += STEP) {					\
		ASSERT_EQ(value(off), READ_ONCE((_mem)[off]));			\
		ASSERT_EQ(0, READ_ONCE((_mem)[off + 1]));			\
		ASSERT_EQ(0, READ_ONCE((_mem)[off + SZ_4K - 1]));		\
	}									\
} while (0)

#define EXPECT_ZERO(_mem)							\
do {										\
	size_t off;								\
										\
	for (off = 0; off < PAGE; off += STEP)					\
		ASSERT_EQ(0, READ_ONCE((_mem)[off]));				\
} while (0)

#define fill(_mem)								\
do {										\
	size_t off;								\
										\
	for (off = 0; off < PAGE; off += STEP)					\
		WRITE_ONCE((_mem)[off], value(off));				\
} while (0)

TEST_GMEM(first_touch)
{
	int fd = create_shared();
	char *mem = map_shared(fd);

	EXPECT_LEDGER(1, 0);
	EXPECT_EQ(0, READ_ONCE(mem[PAGE - 1]));
	EXPECT_LEDGER(1, 1);
	EXPECT_ZERO(mem);
	fill(mem);
	EXPECT_FILLED(mem);
	TEST_EXPECT_SIGBUS((void)READ_ONCE(mem[PAGE]));
	EXPECT_LEDGER(1, 1);
}

/* What is unmapped is mapped again as it was. */
TEST_GMEM(mappings_come_and_go)
{
	int fd = create_shared();
	char *mem = map_shared(fd), *other;

	fill(mem);
	other = kvm_mmap(PAGE, PROT_READ, MAP_SHARED, fd);
	EXPECT_FILLED(other);
	kvm_munmap(mem, 2 * PAGE);
	EXPECT_FILLED(other);
	kvm_munmap(other, PAGE);
	other = kvm_mmap(PAGE, PROT_READ, MAP_SHARED, fd);
	EXPECT_FILLED(other);
	EXPECT_LEDGER(1, 1);
}

/* Each single page of a huge one that was whole before. */
TEST_GMEM(populate)
{
	int fd = create_shared();
	char *mem = map_shared(fd);
	size_t off;

	allocate(fd, 0, 1);
	ASSERT_EQ(0, madvise(mem, PAGE, MADV_POPULATE_WRITE));
	for (off = 0; off < PAGE; off += SZ_4K)
		ASSERT_EQ(0, READ_ONCE(mem[off]));
	EXPECT_LEDGER(1, 1);
}

TEST_GMEM(punch)
{
	int fd = create_shared();
	char *mem = map_shared(fd);

	fill(mem);
	punch(fd, 0, 1);
	EXPECT_LEDGER(1, 0);
	EXPECT_ZERO(mem);
	EXPECT_LEDGER(1, 1);
}

/* A fault that can't be served harms nothing, and can be when there is a page. */
TEST_GMEM(cgroup_usage_limit)
{
	int fd = create_shared();
	char *mem = map_shared(fd);

	if (!self->ledger.cgroup[0])
		SKIP(return, "No cgroup v2 hierarchy with a hugetlb controller");

	hugetlb_ledger_set_limit(&self->ledger, "max", 0);
	TEST_EXPECT_SIGBUS(WRITE_ONCE(*mem, 1));
	EXPECT_LEDGER(1, 0);

	hugetlb_ledger_set_limit(&self->ledger, "max", PAGE);
	WRITE_ONCE(*mem, 1);
	EXPECT_LEDGER(1, 1);
}

struct race {
	pthread_barrier_t barrier;
	char *mem;
	int nr_rounds, nr_threads;
};

/* Two threads each have the same 4K. */
static size_t place(int id)
{
	return id / 2 * SZ_4K + id;
}

static void *race_to_touch(void *data)
{
	struct race *race = data;
	int id = __atomic_fetch_add(&race->nr_threads, 1, __ATOMIC_RELAXED), i;

	for (i = 0; i < race->nr_rounds; i++) {
		pthread_barrier_wait(&race->barrier);
		WRITE_ONCE(race->mem[place(id)], value(i * SZ_4K));
		pthread_barrier_wait(&race->barrier);
	}
	return NULL;
}

/* Everybody wants the pool's last page at once, which is allocated and split once. */
TEST_GMEM(threads_touch_one_page)
{
	long available = hugetlb_pool_available(PAGE);
	struct race race = { .nr_rounds = variant->nr_races };
	pthread_t threads[NR_THREADS];
	int fd, i, id;

	fd = create(available, GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED);
	ASSERT_LE(0, fd);
	allocate(fd, 1, available - 1);
	race.mem = map_shared(fd);
	pthread_barrier_init(&race.barrier, NULL, NR_THREADS + 1);
	for (id = 0; id < NR_THREADS; id++)
		kvm_pthread_create(&threads[id], NULL, race_to_touch, &race);

	for (i = 0; i < race.nr_rounds; i++) {
		pthread_barrier_wait(&race.barrier);
		pthread_barrier_wait(&race.barrier);
		for (id = 0; id < NR_THREADS; id++)
			EXPECT_EQ(value(i * SZ_4K), READ_ONCE(race.mem[place(id)]));
		EXPECT_LEDGER(available, available);
		punch(fd, 0, 1);
	}

	for (id = 0; id < NR_THREADS; id++)
		kvm_pthread_join(threads[id], NULL);
}

/* In the kernel, on behalf of a system call. */
static pid_t fork_reader(char *mem, size_t len)
{
	pid_t pid = fork();

	TEST_ASSERT(pid >= 0, "fork() failed: %s", strerror(errno));
	if (pid)
		return pid;

	_exit(read(open("/dev/zero", O_RDONLY), mem, len) != len);
}

static bool ends_in_time(pid_t pid)
{
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (!waitpid(pid, NULL, WNOHANG)) {
		if (timespec_elapsed(start).tv_sec >= TIMEOUT_SECONDS / 6)
			return false;
		usleep(1000);
	}
	return true;
}

/* Sooner or later in the first touch, which zeroes all of the page. */
TEST_GMEM(killed_in_a_fault)
{
	int fd = create_shared();
	char *mem = map_shared(fd);
	useconds_t delay;
	pid_t pid;

	for (delay = 1000; delay < 500 * 1000; delay *= 2) {
		pid = fork_reader(mem, PAGE);
		usleep(delay);
		kill(pid, SIGKILL);
		ASSERT_TRUE(ends_in_time(pid));
		punch(fd, 0, 1);
	}
}

/* A file in sysfs of the memory block in which a page is that has been touched. */
static int open_memory_block(char *mem, const char *name, int flags)
{
	char path[64];
	u64 size;
	int fd;

	fd = open(MEMORY_BLOCKS "block_size_bytes", O_RDONLY);
	if (fd < 0)
		return fd;
	TEST_ASSERT(read(fd, path, sizeof(path)) > 0, "The size of memory blocks is unknown");
	kvm_close(fd);
	size = strtoull(path, NULL, 16);

	snprintf(path, sizeof(path), MEMORY_BLOCKS "memory%lu/%s",
		 pfn_of(mem) * getpagesize() / size, name);
	return open(path, flags);
}

static bool is_movable(char *mem)
{
	int fd = open_memory_block(mem, "valid_zones", O_RDONLY);
	char zone[64] = "";

	if (fd < 0)
		return false;
	TEST_ASSERT(read(fd, zone, sizeof(zone) - 1) >= 0, "The zone of a memory block is unknown");
	kvm_close(fd);
	return !strncmp(zone, "Movable", strlen("Movable"));
}

static void interrupt(int sig)
{
}

/* Memory can't be taken offline as long as a page of it is used in pieces. */
TEST_GMEM(offlining)
{
	struct sigaction action = { .sa_handler = interrupt };
	size_t nr_pages = hugetlb_pool_available(PAGE), size = nr_pages * PAGE;
	int fd = create(nr_pages, GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED);
	char *mem = kvm_mmap(size, PROT_READ | PROT_WRITE, MAP_SHARED, fd), *p;

	/* In other zones it ends early: something in the block may be unmovable. */
	for (p = mem; p < mem + size; p += PAGE) {
		WRITE_ONCE(*p, 1);
		if (is_movable(p))
			break;
	}
	if (p == mem + size)
		SKIP(return, "No page in ZONE_MOVABLE (movablecore=), or no MEMORY_HOTREMOVE");

	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	alarm(TIMEOUT_SECONDS / 6);
	EXPECT_ERRNO(EBUSY, write(open_memory_block(p, "state", O_WRONLY), "offline", 7));
	alarm(0);
	EXPECT_EQ(1, READ_ONCE(*p));
}

/* The last of descriptor, mapping and VM gives everything back. */
TEST_GMEM(last_user)
{
	int fd = create_shared();
	char *mem = map_shared(fd);

	fill(mem);
	kvm_vm_free(self->vm);
	kvm_close(fd);
	EXPECT_LEDGER(1, 1);
	EXPECT_FILLED(mem);
	kvm_munmap(mem, 2 * PAGE);
	EXPECT_LEDGER(0, 0);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_GUEST_MEMFD));

	hugetlb_ledger_init();
	return test_harness_run(argc, argv);
}

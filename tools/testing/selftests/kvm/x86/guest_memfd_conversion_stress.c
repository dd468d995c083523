// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stress in-place conversion of guest_memfd: threads, each with a vCPU, use files of
 * 4K, 2M and 1G pages all at once, at random, and check that the kernel does what a
 * model says.  A round ends with all that can be checked when nobody works any more:
 * each page of each file, that huge pages become whole again, and that the pool gets
 * all of them back, from pins that outlive the file, too.
 *
 *	-s SEED		replay the operations of each thread
 *	-t SECONDS	how long to work; checks take about a quarter of that
 *	-n THREADS	as many vCPUs
 *
 * What threads draw depends on the seed alone, how they meet doesn't.
 */
#include "gmem_stress_model.h"
#include "gmem_stress_access.h"
#include "gmem_stress_file.h"
#include "gmem_stress_ops.h"
#include "kselftest.h"

#define WINDOW		((u64)SZ_1G + SZ_2M)
#define WINDOW_GPA(id)	(GMEM_GPA + (id) * 2UL * SZ_1G)

/* For a window, and what the model says of it. */
#define NR_PAGE_TABLES	8
#define GENS_SLOT	(GMEM_SLOT + NR_FILES)

#define SECONDS_PER_ROUND	20

/* A round that takes so long never ends. */
#define ROUND_PATIENCE		400

/* For each operation to have happened, in this way and that. */
#define ENOUGH_OPS		3000

static struct stress stress = {
	.files = {
		{ .name = "4K", .page_size = SZ_4K, .nr_pages = SZ_16M / SZ_4K },
		{ .name = "2M", .page_size = SZ_2M, .nr_pages = SZ_8M / SZ_4K,
		  .page_size_flag = GUEST_MEMFD_FLAG_HUGETLB_2M },
		{ .name = "1G", .page_size = SZ_1G, .nr_pages = SZ_1G / SZ_4K,
		  .page_size_flag = GUEST_MEMFD_FLAG_HUGETLB_1G },
	},
	.nr_workers = 4,
};

static struct stress_file *next_file(struct stress *s, struct stress_file *f)
{
	while (f < s->files + NR_FILES && !f->is_usable)
		f++;
	return f;
}

#define for_each_file(f, s)							\
	for (f = next_file(s, (s)->files); f < (s)->files + NR_FILES;		\
	     f = next_file(s, f + 1))

static const struct {
	enum result (*fn)(struct worker *w, struct stress_file *f);
	int weight;
} ops[NR_OPS] = {
	[OP_TO_PRIVATE]		= { do_convert, 14 },
	[OP_TO_SHARED]		= { do_convert, 14 },
	[OP_HOST_ACCESS]	= { do_host_access, 14 },
	[OP_HOST_WRITE]		= { do_host_access, 8 },
	[OP_GUEST_ACCESS]	= { do_guest_access, 16 },
	[OP_HOST_PEEK]		= { do_host_peek, 12 },
	[OP_GUEST_PEEK]		= { do_guest_peek, 8 },
	[OP_PIN]		= { do_pin, 12 },
	[OP_UNPIN]		= { do_unpin, 12 },
	[OP_PUNCH_HOLE]		= { do_punch_hole, 3 },
	[OP_ALLOCATE]		= { do_allocate, 3 },
	[OP_FDINFO]		= { do_fdinfo, 4 },
	[OP_CHECK]		= { do_check, 3 },
	[OP_RECREATE]		= { do_recreate, 1 },
};

/* A seed of its own for each operation (splitmix64); 0 would be no seed. */
static u32 op_seed(struct worker *w)
{
	u64 x = (u64)w->stress->seed << 32 ^ (u64)w->stress->round << 24 ^ w->id;

	x += (w->nr_ops + 1) * 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return (x ^ x >> 31) % (INT_MAX - 1) + 1;
}

static enum op random_op(struct worker *w)
{
	int i, sum = 0, x;

	for (i = 0; i < NR_OPS; i++)
		sum += ops[i].weight;
	x = draw(w, sum - 1);
	for (i = 0; x >= ops[i].weight; i++)
		x -= ops[i].weight;
	return i;
}

static struct stress_file *random_file(struct worker *w)
{
	struct stress_file *f;

	do {
		f = &w->stress->files[draw(w, NR_FILES - 1)];
	} while (!f->is_usable);
	return f;
}

static void *work(void *data)
{
	struct worker *w = data;
	struct stress_file *f;

	for (w->nr_ops = 0; !READ_ONCE(w->stress->stop); w->nr_ops++) {
		w->rng = new_kvm_random_state(op_seed(w));
		w->op = random_op(w);
		f = random_file(w);
		w->counts[w->op][ops[w->op].fn(w, f)]++;
	}
	return NULL;
}

static long read_vmstat(const char *name)
{
	char line[128], key[64];
	long val, found = 0;
	FILE *f = fopen("/proc/vmstat", "r");

	TEST_ASSERT(f, "Error opening /proc/vmstat");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%63s %ld", key, &val) == 2 && !strcmp(key, name))
			found = val;
	fclose(f);
	return found;
}

/*
 * What has to be the same after each round, in words.  With pins, as if what they
 * keep were free already; nobody knows of which node that is.
 */
static void describe_counters(struct stress *s, bool pinned, char *buf)
{
	struct hugetlb_pool pool;
	struct orphans orphans;
	struct stress_file *f;
	int i;

	for_each_file(f, s) {
		if (!is_hugetlb(f))
			continue;
		pool = hugetlb_pool_read(f->page_size);
		orphans = count_orphans(f);
		pool.free += orphans.nr_pages;
		pool.resv -= orphans.nr_files * nr_huge(f) - orphans.nr_pages;
		buf += sprintf(buf, "%s pool: %ld, %ld free, %ld reserved, %ld surplus; ",
			       f->name, pool.total, pool.free, pool.resv, pool.surplus);
		for (i = 0; !pinned && i < pool.nr_nodes; i++)
			buf += sprintf(buf, "node %d: %ld, %ld free, %ld surplus; ", i,
				       pool.node[i].total, pool.node[i].free,
				       pool.node[i].surplus);
	}
	if (!pinned)
		sprintf(buf, "%ld pages of struct pages, %ld huge pages in pieces",
			read_vmstat("nr_memmap_pages") +
			read_vmstat("nr_memmap_boot_pages"),
			read_vmstat("htlb_split") - read_vmstat("htlb_merge") -
			read_vmstat("htlb_rejoin"));
}

static void init_counters(struct stress *s)
{
	describe_counters(s, true, s->counters[true]);
	describe_counters(s, false, s->counters[false]);
}

/* What pins have kept from the pool comes back when its last page is free. */
static void wait_for_counters(struct stress *s, bool pinned)
{
	char counters[sizeof(s->counters[0])];
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		describe_counters(s, pinned, counters);
		if (!strcmp(counters, s->counters[pinned]))
			return;
		usleep(1000);
	} while (timespec_elapsed(start).tv_sec < GMEM_PATIENCE);

	TEST_FAIL("Round %u, %s pins, expected:\n  %s\ngot:\n  %s", s->round,
		  pinned ? "with" : "without", s->counters[pinned], counters);
}

/* From the host, random ones are enough: the guest looks at each page. */
static void check_pages(struct worker *w, struct stress_file *f)
{
	struct range r = whole_file(f);
	int i;

	guest_visit(w, f, r, new_visit(f, LOOK_CHECK, r, 0));
	for (i = 0; i < 2048; i++) {
		r.first = random_pgoff(w, f);
		r.end = r.first + 1;
		CHECK(w, f, host_visit(w, f, r, new_visit(f, LOOK_CHECK, r, 0)) ==
			    !f->is_private[r.first],
		      "Page %lu is %s, but not for the host", r.first,
		      f->is_private[r.first] ? "private" : "shared");
	}
}

/* Nobody works, so that this is exact. */
static void check_quiet_fdinfo(struct worker *w, struct stress_file *f)
{
	struct gmem_info info = check_locked_fdinfo(w, f);

	CHECK(w, f, info.allocated <= nr_present(f, true),
	      "Expected no more than %lu pages, got %lu", nr_present(f, true),
	      info.allocated);
	if (is_hugetlb(f))
		CHECK(w, f, info.in_folios == info.allocated,
		      "Expected %lu pages in folios, found %lu", info.allocated,
		      info.in_folios);
}

/* Once all is private, huge pages are whole, and have what they had in pieces. */
static void check_merge(struct worker *w, struct stress_file *f)
{
	struct gmem_info info;

	convert(w, f, (struct range) { 0, 1 }, false);
	convert(w, f, whole_file(f), true);
	info = check_locked_fdinfo(w, f);
	CHECK(w, f, info.in_whole == f->nr_pages, "Of %lu pages %lu are in whole huge pages",
	      f->nr_pages, info.in_whole);
	check_pages(w, f);
}

static void finish_file(struct worker *w, struct stress_file *f)
{
	bool keep_pins = kvm_random_bool(&w->rng);

	w->op = OP_CHECK;
	check_quiet_fdinfo(w, f);
	check_pages(w, f);
	if (!keep_pins) {
		drop_pins(w, f);
		if (is_hugetlb(f))
			check_merge(w, f);
	}
	close_file(w, f);
}

static void run_workers(struct stress *s, int seconds)
{
	int i;

	s->stop = false;
	for (i = 0; i < s->nr_workers; i++)
		kvm_pthread_create(&s->workers[i].thread, NULL, work, &s->workers[i]);
	sleep(seconds);
	WRITE_ONCE(s->stop, true);
	for (i = 0; i < s->nr_workers; i++)
		kvm_pthread_join(s->workers[i].thread, NULL);
}

/* Tell who is stuck where, rather than be killed by somebody who doesn't know. */
static void handle_alarm(int signum)
{
	struct stress *s = &stress;
	struct worker *w;

	for (w = s->workers; w < s->workers + s->nr_workers; w++)
		ksft_print_msg("Worker %d: operation %ld (%s)\n", w->id, (long)w->nr_ops,
			       op_names[w->op]);
	ksft_exit_fail_msg("Round %u of seed 0x%x is stuck\n", s->round, s->seed);
}

static void run_round(struct stress *s, int seconds)
{
	struct worker *w = &s->workers[0];
	struct stress_file *f;

	alarm(ROUND_PATIENCE);
	w->nr_ops = -1ul;
	w->rng = new_kvm_random_state(op_seed(w));
	for_each_file(f, s) {
		f->gpa = WINDOW_GPA(f->id);
		if (kvm_random_bool(&w->rng))
			f->gpa += f->page_size == SZ_1G ? SZ_2M : SZ_4K;
		open_file(w, f);
	}

	run_workers(s, seconds);

	w->nr_ops = -2ul;
	w->rng = new_kvm_random_state(op_seed(w));
	for_each_file(f, s)
		finish_file(w, f);
	wait_for_counters(s, true);
	for_each_file(f, s)
		drop_pins(w, f);
	wait_for_counters(s, false);
}

/* Large pages of the guest's own keep its page tables out of the way. */
static void map_for_guest(struct stress *s, struct stress_file *f)
{
	u64 nr_pages = DIV_ROUND_UP(f->nr_pages * sizeof(*f->gens), PAGE_SIZE);
	gpa_t gpa = WINDOW_GPA(f->id);

	virt_map_level(s->vm, gpa, gpa, WINDOW, PG_LEVEL_2M);

	f->gens_gva = gpa + WINDOW;
	vm_userspace_mem_region_add(s->vm, VM_MEM_SRC_ANONYMOUS, f->gens_gva,
				    GENS_SLOT + f->id, nr_pages, 0);
	virt_map(s->vm, f->gens_gva, f->gens_gva, nr_pages);
	f->gens = addr_gpa2hva(s->vm, f->gens_gva);
}

static void init_file(struct stress *s, struct stress_file *f)
{
	f->id = f - s->files;
	f->is_usable = !is_hugetlb(f) || (hugetlb_pool_exists(f->page_size) &&
					  hugetlb_pool_grow(f->page_size, nr_huge(f)) >=
					  nr_huge(f));
	if (!f->is_usable) {
		ksft_print_msg("No %s pages, no file of these\n", f->name);
		return;
	}

	f->mem = kvm_mmap(file_size(f) + SZ_1G, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	f->mem = align_ptr_up(f->mem, SZ_1G);
	f->is_private = calloc(f->nr_pages, 1);
	f->nr_pins = calloc(f->nr_pages, 1);
	f->is_present = calloc(nr_huge(f), 1);
	f->was_peeked = calloc(nr_huge(f), 1);
	pthread_rwlock_init(&f->life, NULL);
	pthread_mutex_init(&f->pins_mutex, NULL);
	pthread_mutex_init(&f->range_lock.mutex, NULL);
	map_for_guest(s, f);
}

static void init_workers(struct stress *s, struct kvm_vcpu *vcpus[])
{
	struct visit *guest = addr_gva2hva(s->vm, (gva_t)guest_visits);
	int i;

	for (i = 0; i < s->nr_workers; i++) {
		s->workers[i].id = i;
		s->workers[i].stress = s;
		s->workers[i].vcpu = vcpus[i];
		s->workers[i].guest_visit = &guest[i];
		vcpu_args_set(vcpus[i], 1, (u64)i);
	}
}

static void init_stress(struct stress *s)
{
	struct kvm_vcpu *vcpus[MAX_WORKERS];
	struct stress_file *f;

	s->vm = __vm_create_with_vcpus(gmem_conversion_shape(), s->nr_workers,
				       NR_FILES * NR_PAGE_TABLES, guest_code, vcpus);
	s->seed = kvm_random_seed;
	s->can_pin = host_can_pin();
	if (!s->can_pin)
		ksft_print_msg("No " GUP_TEST_PATH ", no pins\n");
	init_workers(s, vcpus);
	for (f = s->files; f < s->files + NR_FILES; f++)
		init_file(s, f);
	init_counters(s);
	catch_sigbus();
	signal(SIGALRM, handle_alarm);
}

static void print_op(struct stress *s, enum op op)
{
	u64 nr[NR_RESULTS] = {}, nr_retries = 0;
	int i, result;

	for (i = 0; i < s->nr_workers; i++) {
		for (result = 0; result < NR_RESULTS; result++)
			nr[result] += s->workers[i].counts[op][result];
		nr_retries += s->workers[i].nr_retries[op];
	}

	ksft_print_msg("%-12s", op_names[op]);
	for (result = 0; result < NR_RESULTS; result++)
		printf(" %5lu %s,", nr[result], result_names[result]);
	printf(" %lu retries\n", nr_retries);

	if (nr_ops(s) < ENOUGH_OPS || !s->can_pin)
		return;
	TEST_ASSERT(nr[DONE], "Expected each operation to succeed sometimes");
	TEST_ASSERT(nr[REFUSED] || op != OP_TO_PRIVATE, "Expected pins to be in the way");
}

static void print_ops(struct stress *s)
{
	u64 nr_missing = 0;
	int i;

	for (i = 0; i < NR_OPS; i++)
		print_op(s, i);
	for (i = 0; i < s->nr_workers; i++)
		nr_missing += s->workers[i].nr_missing;
	ksft_print_msg("The guest found no memory %lu times\n", nr_missing);
	ksft_print_msg("%ld splits, %ld merges, %ld pages back from pins\n",
		       read_vmstat("htlb_split"), read_vmstat("htlb_merge"),
		       read_vmstat("htlb_rejoin"));
}

static void help(const char *name)
{
	printf("usage: %s [-s SEED] [-t SECONDS] [-n THREADS (1 to %d)]\n", name, MAX_WORKERS);
	exit(KSFT_FAIL);
}

int main(int argc, char **argv)
{
	int opt, seconds = 60, nr_rounds;
	struct stress *s = &stress;

	while ((opt = getopt(argc, argv, "s:t:n:")) != -1) {
		switch (opt) {
		case 's':
			kvm_random_seed = strtoul(optarg, NULL, 0);
			break;
		case 't':
			seconds = atoi_positive("Seconds", optarg);
			break;
		case 'n':
			s->nr_workers = atoi_positive("Threads", optarg);
			break;
		default:
			help(argv[0]);
		}
	}
	if (s->nr_workers > MAX_WORKERS)
		help(argv[0]);

	TEST_REQUIRE(gmem_conversion_supported());

	nr_rounds = DIV_ROUND_UP(seconds, SECONDS_PER_ROUND);
	ksft_print_header();
	ksft_set_plan(nr_rounds);
	init_stress(s);

	for (s->round = 0; s->round < nr_rounds; s->round++) {
		run_round(s, max(1, seconds * 3 / 4 / nr_rounds));
		ksft_test_result_pass("round %u of seed 0x%x\n", s->round, s->seed);
	}
	print_ops(s);
	ksft_finished();
}

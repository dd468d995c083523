// SPDX-License-Identifier: GPL-2.0-only
/*
 * Race in-place conversion of guest_memfd with a vCPU that runs on the memory
 * meanwhile, with PUNCH_HOLE and with memslots that are replaced.  The guest may
 * not lose data, or find what is another page's.
 */
#include "gmem_race.h"
#include "gmem_test.h"

static void guest_visit_page(u64 pgoff, u64 pass)
{
	u64 *page = (u64 *)(GMEM_GPA + OFFSET(pgoff)), val = READ_ONCE(*page);
	u64 expected = tag(pgoff) + (control.read_only ? 0 : pass - 1);

	if (!val) {
		control.nr_zero++;
	} else if (val == MISSING) {
		WRITE_ONCE(control.nr_missing, control.nr_missing + 1);
	} else {
		GUEST_ASSERT_EQ(val, expected);
		WRITE_ONCE(control.nr_kept, control.nr_kept + 1);
	}

	if (!control.read_only)
		WRITE_ONCE(*page, tag(pgoff) + pass);
}

static void guest_visit_pages(void)
{
	u64 pass, pgoff;

	for (pass = 1; !READ_ONCE(control.stop); pass++) {
		for (pgoff = 0; pgoff < NR_PAGES; pgoff++)
			guest_visit_page(pgoff, pass);
		WRITE_ONCE(control.nr_passes, pass);
	}
	guest_stopped();
}

/* Convert at random while the guest runs, and while @disturb does its part. */
static void race_with_guest(struct race *race, void *(*disturb)(void *))
{
	struct control *seen = race->control;
	pthread_t thread;
	u64 nr;

	start_guest(race, guest_visit_pages);
	if (disturb)
		kvm_pthread_create(&thread, NULL, disturb, race);
	nr = convert_random_ranges(race, 1000);
	wait_for(&seen->nr_passes, 3);
	WRITE_ONCE(race->stop, true);
	if (disturb)
		kvm_pthread_join(thread, NULL);
	stop_guest(race);

	ksft_print_msg("%lu conversions, refused %lu times, %lu memory faults\n",
		       nr, race->nr_refused, race->nr_memory_faults);
	ksft_print_msg("The guest found its data %lu times, nothing %lu, no memory %lu\n",
		       seen->nr_kept, seen->nr_zero, seen->nr_missing);
	TEST_ASSERT(nr >= 50, "Expected 50 conversions or more, had time for %lu", nr);
	TEST_ASSERT(seen->nr_kept, "Expected the guest to find its data");
	check_states(race);
	convert(race, 0, NR_PAGES, false);
}

/* Nobody but the guest uses the memory, and that is never a reason to refuse. */
TEST_RACE(guest_keeps_its_data)
{
	struct race *race = &self->race;
	u64 pgoff;

	race_with_guest(race, NULL);
	EXPECT_EQ(0, race->nr_refused);
	EXPECT_EQ(NR_PAGES, race->control->nr_zero);
	for (pgoff = 0; pgoff < NR_PAGES; pgoff++)
		EXPECT_EQ(tag(pgoff) + race->control->nr_passes, *host_page(race, pgoff));
}

static void *punch_holes(void *data)
{
	struct race *race = data;
	struct kvm_random_state rng = new_kvm_random_state(kvm_random_seed + 1);
	u64 pgoff, nr, val;

	do {
		random_range(&rng, &pgoff, &nr);
		kvm_fallocate(race->t.fd, PUNCH, OFFSET(pgoff), OFFSET(nr));
		race->nr_punched++;
		if (try_read(host_page(race, pgoff), &val))
			TEST_ASSERT(!val || val >> 32 == pgoff + 1,
				    "Expected 0 or 0x%lx in page %lu, found 0x%lx",
				    tag(pgoff), pgoff, val);
	} while (!READ_ONCE(race->stop));
	return NULL;
}

/* A page that is gone is found empty, and never again with what it held. */
TEST_RACE(punch_hole)
{
	struct race *race = &self->race;

	race_with_guest(race, punch_holes);
	EXPECT_LE(10, race->nr_punched);
	EXPECT_LT(NR_PAGES, race->control->nr_zero);
}

static void *replace_slot(void *data)
{
	struct race *race = data;
	struct gmem_conversion *t = &race->t;

	do {
		vm_set_user_memory_region2(t->vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD,
					   0, 0, NULL, -1, 0);
		wait_for_more(&race->control->nr_missing, 1);
		vm_set_user_memory_region2(t->vm, GMEM_SLOT, KVM_MEM_GUEST_MEMFD,
					   GMEM_GPA, t->size, t->mem, t->fd, 0);
		wait_for_more(&race->control->nr_kept, 1);
	} while (!READ_ONCE(race->stop));
	return NULL;
}

/* State and contents are the file's, and are there again with the memslot. */
TEST_RACE(slot_is_replaced)
{
	struct race *race = &self->race;
	u64 pgoff;

	race->control->read_only = true;
	for (pgoff = 0; pgoff < NR_PAGES; pgoff++)
		*host_page(race, pgoff) = tag(pgoff);

	race_with_guest(race, replace_slot);
	EXPECT_LT(0, race->control->nr_missing);
	EXPECT_EQ(0, race->control->nr_zero);
	for (pgoff = 0; pgoff < NR_PAGES; pgoff++)
		EXPECT_EQ(tag(pgoff), *host_page(race, pgoff));
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());

	return test_harness_run(argc, argv);
}

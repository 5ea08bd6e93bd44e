//! The lanes: rings without locks, one for each program that runs for each segment, on each processor.
//!
//! The kernel writes them (`struct lane` of `sampler.bpf.c`), user space maps and reads them. Owns the shared memory and
//! the protocol of its two counters; what order records of several lanes are in is [`crate::merge`]'s.

use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::{SysconfVar, sysconf};

use crate::layout::SAMPLE_BYTES;
use crate::merge::Sources;

/// Lanes of a processor, `LANES` of `sampler.bpf.c`.
pub(crate) const LANES_OF_A_CPU: u32 = 4;
/// Records that a lane has room for at most: 10 ms of what a saturated processor sends, until the reader is woken.
const MOST_SLOTS: u32 = 4096;
/// A lane of fewer is not worth its memory.
const FEWEST_SLOTS: u32 = 64;

/// A `struct lane`, as the kernel has it.
#[repr(C)]
struct Head {
    /// Records that the program has written.
    written: AtomicU64,
    busy: u64,
    woken: u64,
    pad: [u64; 5],
    /// Records that were read here.
    read: AtomicU64,
    more_pad: [u64; 7],
}

/// How many records a lane has room for, where all lanes together may take half of `bytes`; 0: none are to be used.
///
/// A program tells that it has written a record by an ordinary store behind those of the record: that takes a
/// processor that keeps the order of stores.
pub(crate) fn slots(bytes: u32, cpus: usize) -> u32 {
    let lanes = u32::try_from(cpus).unwrap_or(u32::MAX).saturating_mul(LANES_OF_A_CPU);
    let share = bytes / 2 / lanes.max(1) / SAMPLE_BYTES as u32;
    if !cfg!(target_arch = "x86_64") || share < FEWEST_SLOTS {
        return 0;
    }
    1 << share.min(MOST_SLOTS).ilog2()
}

/// Shared memory, given back when dropped.
struct Mapping {
    at: NonNull<libc::c_void>,
    bytes: usize,
}

// SAFETY: the memory belongs to the mapping alone, whichever thread has it
#[expect(unsafe_code, reason = "memory that is shared with the kernel")]
unsafe impl Send for Mapping {}

impl Mapping {
    fn of(map: impl AsFd, bytes: usize, prot: ProtFlags) -> nix::Result<Mapping> {
        let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|p| usize::try_from(p).ok()).unwrap_or(4096);
        let bytes = NonZeroUsize::new(bytes.next_multiple_of(page)).ok_or(nix::Error::EINVAL)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that there is
        #[expect(unsafe_code, reason = "memory that is shared with the kernel")]
        let at = unsafe { mmap(None, bytes, prot, MapFlags::MAP_SHARED, map, 0)? };
        Ok(Mapping { at, bytes: bytes.get() })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, and no reference into it outlives self
        #[expect(unsafe_code, reason = "memory that is shared with the kernel")]
        let _ = unsafe { munmap(self.at, self.bytes) };
    }
}

/// How far a lane is read.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    /// Records taken.
    read: u64,
    /// Records that were there when last looked.
    written: u64,
}

/// The lanes of all processors.
pub(crate) struct Lanes {
    heads: Mapping,
    records: Mapping,
    slots: u64,
    readings: Vec<Reading>,
}

impl Lanes {
    /// Maps the kernel's maps `lanes` and `lane_slots`, for so many lanes of so many records, a power of two.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn map(heads: impl AsFd, records: impl AsFd, lanes: usize, slots: u32) -> nix::Result<Lanes> {
        let read = ProtFlags::PROT_READ;
        Ok(Lanes {
            heads: Mapping::of(heads, lanes * size_of::<Head>(), read | ProtFlags::PROT_WRITE)?,
            records: Mapping::of(records, lanes * slots as usize * SAMPLE_BYTES, read)?,
            slots: slots.into(),
            readings: vec![Reading::default(); lanes],
        })
    }

    /// Looks what has been written: from here on [`Lanes::front`] knows it.
    pub(crate) fn look(&mut self) {
        for lane in 0..self.readings.len() {
            let written = self.head(lane).written.load(Ordering::Acquire);
            self.readings[lane].written = written;
        }
    }

    /// Lets the programs have the room of what was taken.
    pub(crate) fn give_back(&self) {
        for (lane, reading) in self.readings.iter().enumerate() {
            self.head(lane).read.store(reading.read, Ordering::Release);
        }
    }

    fn head(&self, lane: usize) -> &Head {
        debug_assert!(lane < self.readings.len());
        // SAFETY: `map` made room for all heads; both sides access the two counters whole, the rest is not looked at
        #[expect(unsafe_code, reason = "memory that is shared with the kernel")]
        unsafe {
            &*self.heads.at.as_ptr().cast::<Head>().add(lane)
        }
    }
}

impl Sources for Lanes {
    fn count(&self) -> usize {
        self.readings.len()
    }

    fn front(&self, lane: usize) -> Option<&[u8]> {
        let Reading { read, written } = *self.readings.get(lane)?;
        if read == written {
            return None;
        }
        let slot = lane * self.slots as usize + (read & (self.slots - 1)) as usize;
        // SAFETY: `map` made room for all slots of all lanes; a program writes into this one only after it was given back
        #[expect(unsafe_code, reason = "memory that is shared with the kernel")]
        Some(unsafe {
            std::slice::from_raw_parts(self.records.at.as_ptr().cast::<u8>().add(slot * SAMPLE_BYTES), SAMPLE_BYTES)
        })
    }

    fn take(&mut self, lane: usize) {
        let reading = &mut self.readings[lane];
        reading.read += u64::from(reading.read != reading.written);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    /// The kernel's side of lanes, in memory of this process.
    struct Kernel {
        heads: File,
        records: File,
    }

    impl Kernel {
        fn new(lanes: u64, slots: u64) -> Kernel {
            let memory = |bytes| {
                let file = File::from(memfd_create("lanes", MFdFlags::empty()).unwrap());
                file.set_len(bytes).unwrap();
                file
            };
            let records = memory(lanes * slots * SAMPLE_BYTES as u64);
            Kernel { heads: memory(lanes * size_of::<Head>() as u64), records }
        }

        fn write(&self, slot: u64, mark: u8) {
            self.records.write_all_at(&[mark; SAMPLE_BYTES], slot * SAMPLE_BYTES as u64).unwrap();
        }

        fn set_written(&self, lane: u64, written: u64) {
            self.heads.write_all_at(&written.to_ne_bytes(), lane * size_of::<Head>() as u64).unwrap();
        }

        fn read(&self, lane: u64) -> u64 {
            let mut read = [0; 8];
            self.heads.read_exact_at(&mut read, lane * size_of::<Head>() as u64 + 64).unwrap();
            u64::from_ne_bytes(read)
        }
    }

    fn front(lanes: &Lanes, lane: usize) -> Option<u8> {
        lanes.front(lane).map(|record| record[0])
    }

    #[test]
    fn records_come_in_order_around_the_end_of_a_lane_and_are_given_back() {
        let kernel = Kernel::new(2, 4);
        let mut lanes = Lanes::map(&kernel.heads, &kernel.records, 2, 4).unwrap();
        lanes.look();
        assert_eq!((front(&lanes, 0), front(&lanes, 1)), (None, None));
        // the second lane's slots are 4 to 7
        let mut mark = 0;
        for round in 0..3 {
            for _ in 0..3 {
                kernel.write(4 + mark % 4, mark as u8);
                mark += 1;
            }
            assert_eq!(front(&lanes, 1), None, "not looked at yet");
            kernel.set_written(1, mark);
            lanes.look();
            for expected in mark - 3..mark {
                assert_eq!(front(&lanes, 1), Some(expected as u8));
                lanes.take(1);
            }
            assert_eq!((front(&lanes, 0), front(&lanes, 1)), (None, None));
            assert_eq!(kernel.read(1), round * 3, "the room is the kernel's again when that is said");
            lanes.give_back();
            assert_eq!((kernel.read(0), kernel.read(1)), (0, mark));
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn lanes_take_no_more_than_half_of_what_the_ring_has() {
        const MIB: u32 = 1 << 20;
        assert_eq!(slots(16 * MIB, 2), MOST_SLOTS);
        for (bytes, cpus) in [(16 * MIB, 2), (16 * MIB, 16), (MIB, 4), (64 * 1024, 1), (1 << 30, 128)] {
            let slots = slots(bytes, cpus) as usize;
            assert!(slots * SAMPLE_BYTES * cpus * LANES_OF_A_CPU as usize <= bytes as usize / 2);
            assert!(slots == 0 || slots.is_power_of_two());
        }
        assert_eq!(slots(64 * 1024, 64), 0, "too little for each");
    }
}

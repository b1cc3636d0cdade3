//! An array map in this process's memory: stores there are ten times as fast as updates by call.

use std::{marker::PhantomData, num::NonZeroUsize, os::fd::AsFd, ptr::NonNull};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::{Error, maps, pins::Pins};

/// The elements of a mapped array map, which other processors read at the same time.
pub(super) struct Mapping<T> {
    start: NonNull<T>,
    bytes: NonZeroUsize,
    count: usize,
    name: &'static str,
    element: PhantomData<T>,
}

// SAFETY: it owns its mapping, which is not bound to a thread.
unsafe impl<T> Send for Mapping<T> {}

impl<T: Copy> Mapping<T> {
    /// `per_value`: elements in one value of the map.
    pub(super) fn open(pins: &Pins, name: &'static str, per_value: usize) -> Result<Self, Error> {
        let data = maps::data(pins, name)?;
        let values = data
            .info()
            .map_err(maps::failed("inspect", name))?
            .max_entries();
        let count = values as usize * per_value;
        let system = |source: nix::Error| Error::System {
            operation: "map a table into memory",
            source: source.into(),
        };
        let bytes = NonZeroUsize::new((count * size_of::<T>()).next_multiple_of(4096))
            .ok_or(Error::MissingMap(name))?;
        // SAFETY: a new mapping of a file descriptor, at an address of the kernel's choice.
        let start = unsafe {
            mmap(
                None,
                bytes,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                data.fd().as_fd(),
                0,
            )
        };
        Ok(Self {
            start: start.map_err(system)?.cast(),
            bytes,
            count,
            name,
            element: PhantomData,
        })
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    pub(super) fn load(&self, index: usize) -> Option<T> {
        // SAFETY: within the mapping; volatile, for others write there.
        (index < self.count).then(|| unsafe { self.start.add(index).read_volatile() })
    }

    /// One copy of a table of two, of so many elements each.
    pub(super) fn half(&self, half: usize, elements: usize) -> impl ExactSizeIterator<Item = T> {
        let first = (half * elements).min(self.count);
        let last = (first + elements).min(self.count);
        // SAFETY: within the mapping; volatile, for others write there.
        (first..last).map(|index| unsafe { self.start.add(index).read_volatile() })
    }

    /// Stores `values` from `first` on.
    pub(super) fn store(
        &mut self,
        first: usize,
        values: impl ExactSizeIterator<Item = T>,
    ) -> Result<(), Error> {
        let needed = first + values.len();
        if needed > self.count {
            return Err(Error::TooSmall {
                map: self.name,
                needed: values.len(),
                available: self.count / 2,
            });
        }
        for (offset, value) in values.enumerate() {
            // SAFETY: within the mapping; volatile, for others read there.
            unsafe { self.start.add(first + offset).write_volatile(value) };
        }
        Ok(())
    }

    /// One copy of a table in which those of two alternate.
    pub(super) fn every_second(&self, copy: usize) -> impl ExactSizeIterator<Item = T> {
        // SAFETY: within the mapping; volatile, for others write there.
        (0..self.count / 2)
            .map(move |index| unsafe { self.start.add(2 * index + copy).read_volatile() })
    }

    /// Stores one copy of such a table.
    pub(super) fn store_every_second(
        &mut self,
        copy: usize,
        values: impl ExactSizeIterator<Item = T>,
    ) -> Result<(), Error> {
        for (index, value) in values.enumerate() {
            self.store(2 * index + copy, std::iter::once(value))?;
        }
        Ok(())
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: our own mapping. It cannot fail for an address and length that mmap gave.
        _ = unsafe { munmap(self.start.cast(), self.bytes.get()) };
    }
}

//! An array map in this process's memory: stores there are ten times as fast as updates by call.
//!
//! What is mapped is resident as a whole, so it is only while it is read or filled.

use std::{
    marker::PhantomData, num::NonZeroUsize, ops::Range, os::fd::AsFd, ptr::NonNull,
    sync::atomic::AtomicU64,
};

use aya::maps::MapData;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::{Error, maps, pins::Pins};

/// An array map that can be mapped.
pub(super) struct Table<T> {
    data: MapData,
    count: usize,
    name: &'static str,
    element: PhantomData<T>,
}

/// Its elements, which other processors read at the same time.
pub(super) struct Mapping<T> {
    start: NonNull<T>,
    bytes: NonZeroUsize,
    count: usize,
    name: &'static str,
}

// SAFETY: it owns its mapping, which is not bound to a thread.
unsafe impl<T> Send for Mapping<T> {}

impl<T: Copy> Table<T> {
    /// `per_value`: elements in one value of the map.
    pub(super) fn open(pins: &Pins, name: &'static str, per_value: usize) -> Result<Self, Error> {
        let data = maps::data(pins, name)?;
        let values = data
            .info()
            .map_err(maps::failed("inspect", name))?
            .max_entries();
        Ok(Self {
            data,
            count: values as usize * per_value,
            name,
            element: PhantomData,
        })
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    pub(super) fn map(&self) -> Result<Mapping<T>, Error> {
        let system = |source: nix::Error| Error::System {
            operation: "map a table into memory",
            source: source.into(),
        };
        let bytes = NonZeroUsize::new((self.count * size_of::<T>()).next_multiple_of(4096))
            .ok_or(Error::MissingMap(self.name))?;
        // SAFETY: a new mapping of a file descriptor, at an address of the kernel's choice.
        let start = unsafe {
            mmap(
                None,
                bytes,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                self.data.fd().as_fd(),
                0,
            )
        };
        Ok(Mapping {
            start: start.map_err(system)?.cast(),
            bytes,
            count: self.count,
            name: self.name,
        })
    }

    pub(super) fn read(
        &self,
        range: Range<usize>,
    ) -> Result<impl ExactSizeIterator<Item = T> + use<T>, Error> {
        let mapping = self.map()?;
        let last = range.end.min(self.count);
        // SAFETY: it is within.
        Ok((range.start.min(last)..last).map(move |index| unsafe { mapping.get(index) }))
    }

    /// One copy of a table of two, of so many elements each.
    pub(super) fn half(
        &self,
        half: usize,
        elements: usize,
    ) -> Result<impl ExactSizeIterator<Item = T> + use<T>, Error> {
        self.read(half * elements..(half + 1) * elements)
    }

    /// Stores `values` from `first` on.
    pub(super) fn store(
        &mut self,
        first: usize,
        values: impl ExactSizeIterator<Item = T>,
    ) -> Result<(), Error> {
        self.map()?.store(first, values)
    }

    /// One copy of a table in which those of two alternate.
    pub(super) fn every_second(
        &self,
        copy: usize,
    ) -> Result<impl ExactSizeIterator<Item = T> + use<T>, Error> {
        let mapping = self.map()?;
        // SAFETY: it is within.
        Ok((0..self.count / 2).map(move |index| unsafe { mapping.get(2 * index + copy) }))
    }

    /// Stores one copy of such a table.
    pub(super) fn store_every_second(
        &mut self,
        copy: usize,
        values: impl ExactSizeIterator<Item = T>,
    ) -> Result<(), Error> {
        let mut mapping = self.map()?;
        for (index, value) in values.enumerate() {
            mapping.store(2 * index + copy, std::iter::once(value))?;
        }
        Ok(())
    }
}

impl<T: Copy> Mapping<T> {
    pub(super) fn load(&self, index: usize) -> Option<T> {
        // SAFETY: it is within.
        (index < self.count).then(|| unsafe { self.get(index) })
    }

    /// # Safety
    /// Of an element that there is.
    unsafe fn get(&self, index: usize) -> T {
        // SAFETY: within the mapping; volatile, for others write there.
        unsafe { self.start.add(index).read_volatile() }
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
}

impl Mapping<u64> {
    /// For words that programs write to as well.
    pub(super) fn atomic(&self, index: usize) -> Option<&AtomicU64> {
        // SAFETY: within the mapping, which lives as long, and at a multiple of eight bytes. Programs
        // write whole words.
        (index < self.count).then(|| unsafe { AtomicU64::from_ptr(self.start.add(index).as_ptr()) })
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: our own mapping. It cannot fail for an address and length that mmap gave.
        _ = unsafe { munmap(self.start.cast(), self.bytes.get()) };
    }
}

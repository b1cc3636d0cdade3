//! Has what the policy is read from changed: its file, and the subnets of the machine?

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use ipnet::IpNet;

use crate::{netlink::Listener, policy::source};

/// What differs between two editions of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    modified: (i64, i64),
    inode: u64,
    length: u64,
}

impl Stamp {
    /// `None` for a file that is not there, as between two steps of an editor.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            inode: metadata.ino(),
            length: metadata.len(),
        })
    }
}

#[derive(Debug)]
pub(super) struct Watch<T> {
    /// Of the edition that was read last, whether or not it was right.
    read: Option<T>,
    /// Seen once; an edition counts when it is seen twice, for a file that is
    /// still being written may be a shorter and yet valid policy, and an interface
    /// gets its addresses one by one.
    pending: Option<T>,
}

impl<T: PartialEq> Watch<T> {
    pub(super) const fn new(read: Option<T>) -> Self {
        Self {
            read,
            pending: None,
        }
    }

    /// Whether to read the policy now. `seen` is what is there at this poll.
    pub(super) fn poll(&mut self, seen: Option<T>) -> bool {
        let changed = if seen == self.read { None } else { seen };
        let settled = changed.is_some() && changed == self.pending;
        self.pending = changed;
        settled
    }

    pub(super) fn read(&mut self, edition: Option<T>) {
        *self = Self::new(edition);
    }
}

/// The subnets of the machine, which are listed again where an address came or went.
pub(super) struct Subnets {
    listener: Listener,
    seen: Option<Vec<IpNet>>,
    watch: Watch<Vec<IpNet>>,
}

impl Subnets {
    pub(super) fn new(read: Option<Vec<IpNet>>) -> io::Result<Self> {
        Ok(Self {
            listener: Listener::of_addresses()?,
            seen: None,
            watch: Watch::new(read),
        })
    }

    pub(super) fn poll(&mut self) -> bool {
        let seen = self.look();
        self.watch.poll(seen)
    }

    pub(super) fn read(&mut self) {
        let seen = self.look();
        self.watch.read(seen);
    }

    fn look(&mut self) -> Option<Vec<IpNet>> {
        // Whoever cannot hear looks.
        if self.listener.hear().unwrap_or(true) || self.seen.is_none() {
            self.seen = source::subnets().ok();
        }
        self.seen.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(length: u64) -> Option<Stamp> {
        Some(Stamp {
            modified: (1, 1),
            inode: 1,
            length,
        })
    }

    #[test]
    fn an_unchanged_file_is_not_read_again() {
        let mut watch = Watch::new(stamp(1));
        assert!(!watch.poll(stamp(1)));
        assert!(!watch.poll(stamp(1)));
    }

    #[test]
    fn a_change_is_read_once_it_has_stayed_the_same_for_two_polls() {
        let mut watch = Watch::new(stamp(1));
        assert!(!watch.poll(stamp(2)));
        assert!(!watch.poll(stamp(3)), "it is still being written");
        assert!(watch.poll(stamp(3)));
        watch.read(stamp(3));
        assert!(!watch.poll(stamp(3)));
        assert!(!watch.poll(stamp(3)));
    }

    #[test]
    fn a_file_that_vanishes_and_returns_unchanged_is_not_read_again() {
        let mut watch = Watch::new(stamp(1));
        assert!(!watch.poll(None));
        assert!(!watch.poll(None));
        assert!(!watch.poll(stamp(1)));
        assert!(!watch.poll(stamp(1)));
    }

    #[test]
    fn a_wrong_edition_is_not_tried_every_second_and_its_correction_is() {
        let mut watch = Watch::new(stamp(1));
        watch.read(stamp(2));
        assert!(!watch.poll(stamp(2)));
        assert!(!watch.poll(stamp(1)));
        assert!(watch.poll(stamp(1)));
    }

    #[test]
    fn a_file_that_is_replaced_by_one_of_the_same_length_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (directory.path().join("old"), directory.path().join("new"));
        fs::write(&old, "a").unwrap();
        fs::write(&new, "b").unwrap();
        let before = Stamp::of(&old);
        assert!(before.is_some());
        fs::rename(&new, &old).unwrap();
        assert_ne!(Stamp::of(&old), before);
        assert_eq!(Stamp::of(&new), None);
    }
}
